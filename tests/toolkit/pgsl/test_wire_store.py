import pytest

from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.pgsl.options import PgslOptions
from gascnn.toolkit.pgsl.wire.store import RunStore

OPTIONS = PgslOptions(width=8)


def test_a_run_folder_has_one_server_and_one_agreement(tmp_path):
    model, order = {"classes": 3}, {"order": ["a"]}
    store = RunStore(tmp_path / "run", OPTIONS.to_dict(), model, order)
    with pytest.raises(UsageError, match="served by another process"):
        RunStore(tmp_path / "run", OPTIONS.to_dict(), model, order)
    store.close()
    with pytest.raises(UsageError, match=r"begun with model classes 3, now it is 4"):
        RunStore(tmp_path / "run", OPTIONS.to_dict(), {"classes": 4}, order)
    again = RunStore(tmp_path / "run", OPTIONS.to_dict(), model, order)
    again.path.write_bytes(b"\x00" * 40)
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        again.load()
    again.close()
