import errno
import hashlib
import json
import os
import threading

import numpy as np
import pytest

from gascnn.toolkit.data import download as module
from gascnn.toolkit.data.download import download, folder_lock
from gascnn.toolkit.data.sources import SourceFile
from gascnn.toolkit.errors import DataError

CONTENT = np.random.default_rng(0).integers(0, 256, 700_000, dtype=np.uint8).tobytes()
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(module, "RETRY_WAIT_S", 0.0)
    monkeypatch.setattr(module, "ATTEMPTS", 1)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def expected(sha256=SHA256, size=SIZE):
    return SourceFile("set.bin", ("unused",), sha256, size, SIZE)


def run(origin, folder, file=None, progress=None, urls=None):
    return download(file or expected(), folder / "set.bin", urls or (f"{origin.url}/set.bin",), progress)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_alone(origin, folder):
    origin.files["set.bin"] = CONTENT
    steps = []
    assert run(origin, folder, progress=lambda *step: steps.append(step)) == SHA256
    assert (folder / "set.bin").read_bytes() == CONTENT
    assert names(folder) == ["set.bin"]
    assert [total for _, total in steps] == [len(CONTENT)] * len(steps)
    done = [count for count, _ in steps]
    assert done == sorted(done)
    assert done[-1] == len(CONTENT)


def test_a_file_that_is_there_is_checked_and_not_fetched_again(origin, folder):
    origin.files["set.bin"] = CONTENT
    run(origin, folder)
    run(origin, folder)
    assert len(origin.requests) == 1
    (folder / "set.bin").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(DataError, match=rf"set\.bin: SHA-256 .*, {SHA256} expected; delete the file"):
        run(origin, folder)


def test_an_interrupted_download_goes_on_where_it_stopped(origin, folder):
    origin.files["set.bin"], origin.cut_after = CONTENT, 300_000
    with pytest.raises(
        DataError, match=r"set\.bin could not be downloaded .*300000 bytes are kept, run the same command"
    ):
        run(origin, folder)
    assert names(folder) == ["set.bin.part", "set.bin.part.json"]
    assert (folder / "set.bin.part").read_bytes() == CONTENT[:300_000]
    origin.cut_after = None
    steps = []
    assert run(origin, folder, progress=lambda *step: steps.append(step)) == SHA256
    assert origin.requests[1] == ("set.bin", "bytes=300000-")
    assert steps[0][0] > 300_000
    assert steps[0][1] == len(CONTENT)
    assert (folder / "set.bin").read_bytes() == CONTENT
    assert names(folder) == ["set.bin"]


def test_one_call_goes_on_by_itself(origin, folder, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 3)
    origin.files["set.bin"], origin.cut_after = CONTENT, 250_000
    assert run(origin, folder) == SHA256
    assert [wanted for _, wanted in origin.requests] == [None, "bytes=250000-", "bytes=500000-"]


@pytest.mark.parametrize("change", ["etag", "ranges", "forgotten"])
def test_a_part_of_something_else_is_not_gone_on_with(origin, folder, change):
    origin.files["set.bin"], origin.cut_after = bytes(len(CONTENT)), 300_000
    with pytest.raises(DataError):
        run(origin, folder)
    origin.files["set.bin"], origin.cut_after = CONTENT, None
    if change == "etag":
        origin.etag = '"v2"'
    elif change == "ranges":
        origin.ranges = False
    else:
        (folder / "set.bin.part.json").unlink()
    assert run(origin, folder) == SHA256
    assert (folder / "set.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_it_starts_anew(origin, folder, etag):
    origin.files["set.bin"], origin.cut_after, origin.etag = CONTENT, 300_000, etag
    with pytest.raises(DataError):
        run(origin, folder)
    origin.cut_after = None
    assert run(origin, folder) == SHA256
    assert [wanted for _, wanted in origin.requests] == [None, None]


def test_a_part_that_is_already_whole_is_checked_and_used(origin, folder):
    origin.files["set.bin"] = CONTENT
    (folder / "set.bin.part").write_bytes(CONTENT)
    note = {"url": f"{origin.url}/set.bin", "validator": origin.etag}
    (folder / "set.bin.part.json").write_text(json.dumps(note))
    assert run(origin, folder) == SHA256
    assert origin.requests == [("set.bin", f"bytes={len(CONTENT)}-")]


def test_a_part_longer_than_the_file_is_dropped(origin, folder, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    origin.files["set.bin"] = CONTENT
    (folder / "set.bin.part").write_bytes(CONTENT + b"more")
    note = {"url": f"{origin.url}/set.bin", "validator": origin.etag}
    (folder / "set.bin.part.json").write_text(json.dumps(note))
    assert run(origin, folder) == SHA256


def test_a_range_other_than_asked_for_is_not_appended(origin, folder, monkeypatch):
    origin.files["set.bin"], origin.cut_after = CONTENT, 300_000
    with pytest.raises(DataError):
        run(origin, folder)
    origin.cut_after, origin.lie_start = None, 5
    with pytest.raises(DataError, match="answered with another range"):
        run(origin, folder)
    assert names(folder) == []


def test_a_wrong_hash_removes_what_arrived(origin, folder):
    origin.files["set.bin"] = CONTENT[:-1] + b"x"
    with pytest.raises(DataError, match=rf"SHA-256 [0-9a-f]{{64}} arrived, {SHA256} is expected; it was removed"):
        run(origin, folder)
    assert names(folder) == []


def test_a_wrong_size_is_refused(origin, folder):
    origin.files["set.bin"] = CONTENT[:-7]
    with pytest.raises(DataError, match="699993 bytes arrived, 700000 are expected"):
        run(origin, folder)
    assert names(folder) == []
    origin.files["set.bin"] = CONTENT + b"more"
    with pytest.raises(DataError, match="700004 bytes announced, 700000 expected"):
        run(origin, folder)
    assert names(folder) == []


def test_a_file_without_end_is_cut_off(origin, folder, monkeypatch):
    monkeypatch.setattr(module, "MAX_DOWNLOAD_BYTES", 100_000)
    origin.files["set.bin"] = CONTENT
    with pytest.raises(DataError, match="700000 bytes announced, 100000 expected"):
        run(origin, folder, expected(None, None))
    assert names(folder) == []


def test_the_first_hash_is_kept_where_none_is_known(origin, folder):
    origin.files["set.bin"] = CONTENT
    unknown = expected(None, None)
    assert run(origin, folder, unknown) == SHA256
    assert (folder / "set.bin.sha256").read_text() == f"{SHA256}  set.bin\n"
    assert run(origin, folder, unknown) == SHA256
    (folder / "set.bin").write_bytes(b"changed")
    with pytest.raises(DataError, match=rf"{SHA256} expected; delete the file and fetch it again"):
        run(origin, folder, unknown)


@pytest.mark.parametrize("status", [404, 500, 503])
def test_an_answer_that_is_no_file(origin, folder, status):
    origin.files["set.bin"], origin.status = CONTENT, status
    with pytest.raises(DataError, match=rf"the origin answered {status} .*; try again later"):
        run(origin, folder)
    assert names(folder) == []


def test_the_next_address_is_tried(origin, folder):
    origin.files["set.bin"] = CONTENT
    urls = (f"{origin.url}/gone.bin", f"{origin.url}/set.bin")
    assert run(origin, folder, urls=urls) == SHA256
    assert [name for name, _ in origin.requests] == ["gone.bin", "set.bin"]


def test_no_connection(folder):
    with pytest.raises(
        DataError, match=r"set\.bin could not be downloaded \(http://127\.0\.0\.1:9/set\.bin: .*try again"
    ):
        download(expected(), folder / "set.bin", ("http://127.0.0.1:9/set.bin",))
    assert names(folder) == []


def test_no_address(folder):
    with pytest.raises(DataError, match=r"could not be downloaded|not an address"):
        download(expected(), folder / "set.bin", ("no address",))


def test_a_redirection_is_followed(origin, folder):
    origin.files["set.bin"], origin.redirect = CONTENT, origin.url
    assert run(origin, folder) == SHA256
    assert [name for name, _ in origin.requests] == ["set.bin", "moved/set.bin"]


def test_a_redirection_to_an_unprotected_address_is_not():
    class Response:
        url = type("Url", (), {"scheme": "http"})
        status_code = 200

    with pytest.raises(DataError, match="led to an unprotected address"):
        module._check_response(Response(), "https://example.org/set.bin")


def test_a_full_disk_leaves_nothing(origin, folder, monkeypatch):
    origin.files["set.bin"] = CONTENT
    real = open

    class Full:
        def __init__(self, handle):
            self.handle = handle

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.handle.close()

        def write(self, chunk):
            self.handle.write(chunk[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(path, mode="r", **options):
        handle = real(path, mode, **options)
        return Full(handle) if mode == "ab" else handle

    monkeypatch.setattr(module, "open", opened, raising=False)
    with pytest.raises(DataError, match=r"set\.bin: could not be written \(No space left on device\)"):
        run(origin, folder)
    assert names(folder) == []


def test_an_interruption_by_the_user_keeps_what_arrived(origin, folder):
    origin.files["set.bin"] = CONTENT

    def impatient(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(origin, folder, progress=impatient)
    assert (folder / "set.bin.part").stat().st_size > 0
    assert not (folder / "set.bin").exists()
    assert run(origin, folder) == SHA256
    assert origin.requests[1][1] is not None


def test_the_lock_lets_one_in_at_a_time(tmp_path):
    order = []
    inside, leave = threading.Event(), threading.Event()

    def first():
        with folder_lock(tmp_path / "x"):
            inside.set()
            leave.wait(10)
            order.append("first")

    def second():
        inside.wait(10)
        with folder_lock(tmp_path / "x"):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    threads[1].join(0.2)
    assert threads[1].is_alive()
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first", "second"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(DataError, match=r"file/x: no folder for data can be made there"),
        folder_lock(tmp_path / "file/x"),
    ):
        pass


def test_without_httpx_the_remedy_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(DataError, match=r"httpx is not installed .* pip install 'gascnn\[edge\]'"):
        download(expected(), folder / "set.bin", ("http://127.0.0.1:9/x",))
