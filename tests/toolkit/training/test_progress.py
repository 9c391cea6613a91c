import io
import sys

from gascnn.toolkit.training.progress import EpochRecord, Lines, Silent, rich_progress

RECORD = EpochRecord(
    epoch=2,
    epochs=10,
    loss=0.12345,
    learning_rate=1e-3,
    val_accuracy=0.9,
    val_macro_f1=0.875,
    best=True,
    time_s=3.21,
    time_left_s=125.6,
)
LINE = "epoch 2/10  loss 0.1235  val accuracy 0.9000, macro-F1 0.8750  3.2 s, 2:06 min left *"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def play(progress):
    progress.begin(10, 5, 1)
    progress.step(2, 1, 0.5)
    progress.epoch(RECORD)
    progress.end()


def test_the_line_of_an_epoch():
    assert RECORD.line() == LINE
    record = EpochRecord(1, 3, 2.0, 0.1, None, None, False, 61.0, 0.4)
    assert record.line() == "epoch 1/3  loss 2.0000  61.0 s, 0:00 min left"


def test_a_log_gets_a_line_an_epoch():
    stream = io.StringIO()
    play(rich_progress(stream=stream))
    assert stream.getvalue() == LINE + "\n"


def test_silence(capsys):
    play(Silent())
    assert capsys.readouterr() == ("", "")


def test_rich_writes_the_line_and_the_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    play(rich_progress(stream=stream))
    assert LINE in stream.getvalue()
    assert "epoch 2  loss 0.5000" in stream.getvalue()
    assert "6/50" in stream.getvalue()


def test_force_draws_without_a_terminal():
    stream = io.StringIO()
    play(rich_progress(force=True, stream=stream))
    assert LINE in stream.getvalue()


def test_plain_lines_where_rich_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name == "rich" or name.startswith("rich.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    stream = Terminal()
    progress = rich_progress(stream=stream)
    assert isinstance(progress, Lines)
    play(progress)
    assert stream.getvalue() == LINE + "\n"
