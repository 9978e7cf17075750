"""What a command says while it runs: lines and bars, or nothing with --quiet; results and errors always."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from qhyvit import cli, console
from qhyvit.progress import told
from tests import _tiny


def called(capfd, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, words)])
    out, err = capfd.readouterr()
    return ended.value.code, out, err


@pytest.mark.parametrize("place", ["before the command", "behind it", "nowhere"])
def test_quiet_leaves_out_lines_and_keeps_results_and_errors(tmp_path, capfd, place):
    _tiny.pictures(tmp_path / "train", 10)
    words = ["build", "--model-py", f"{_tiny.__file__}:make", "--images", tmp_path / "train", "--count", 4,
             "--method", "minmax", "--min-agreement", 0, "--out", tmp_path / "B"]  # fmt: skip
    words = {"before the command": ["--quiet", *words], "behind it": [*words, "--quiet"], "nowhere": words}[place]
    code, out, err = called(capfd, *words)
    assert code == 0
    assert out.splitlines()[-1] == str(tmp_path / "B")
    assert "passed" in out
    ours = [line for line in err.splitlines() if line.startswith(("export:", "calibrate:", "convert:", "verify:"))]
    assert bool(ours) == (place == "nowhere")
    code, _, err = called(capfd, *words)
    assert (code, err) == (2, f"qhyvit: error: {tmp_path / 'B'} exists; use --force to replace it, or another --out\n")


def test_a_command_after_a_quiet_one_speaks_again(capfd):
    called(capfd, "--quiet", "tasks")
    with console.talk() as talk:
        talk.log("a line")
    assert capfd.readouterr().err == "a line\n"


def on_a_terminal(monkeypatch):
    """A talk with bars, and what they draw on."""
    drawn = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=drawn, force_terminal=True, width=100))
    monkeypatch.setattr("sys.stderr", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
    return drawn


def test_bars_have_the_time_that_is_left(monkeypatch):
    drawn = on_a_terminal(monkeypatch)
    with console.talk() as talk:
        assert isinstance(talk._bars, Progress)
        assert any(isinstance(column, TimeRemainingColumn) for column in talk._bars.columns)
        talk.progress("observe", 0.0)
        talk.progress("observe", 0.5)
        talk.log("a line above the bar")
        (task,) = talk._bars.tasks
        assert (task.percentage, task.finished) == (50, False)
    assert "left" in drawn.getvalue()
    assert "a line above the bar" in drawn.getvalue()


def test_what_tells_its_start_alone_has_a_bar_without_a_share(monkeypatch):
    on_a_terminal(monkeypatch)
    with console.talk() as talk:
        talk.progress("export", 0.0)
        assert talk._bars.tasks[0].total is None
        talk.progress("observe", 0.25)
        first, second = talk._bars.tasks
        assert (first.finished, first.visible) == (True, False)
        assert (second.percentage, second.visible) == (25, True)


def test_quiet_has_no_bars_on_a_terminal_either(monkeypatch):
    drawn = on_a_terminal(monkeypatch)
    console.silence(wanted=True)
    try:
        with console.talk() as talk:
            talk.progress("observe", 0.5)
            talk.log("a line")
    finally:
        console.silence(wanted=False)
    assert drawn.getvalue() == ""


def test_items_are_told_one_by_one():
    said = []
    assert list(told("abcd", "read", lambda *words: said.append(words), 0.5)) == list("abcd")
    assert said == [("read", 0.5), ("read", 0.625), ("read", 0.75), ("read", 0.875)]


def test_a_verification_tells_how_far_it_is(tmp_path):
    from qhyvit import api

    _tiny.pictures(tmp_path / "train", 12)
    said = []
    api.build(f"{_tiny.__file__}:make", tmp_path / "train", tmp_path / "B", method="minmax", count=4, min_agreement=0.0,
              progress=lambda what, share: said.append((what, share)))  # fmt: skip
    shares = [share for what, share in said if what == "simulate"]
    assert len(shares) > 4
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert len([what for what, _ in said if what == "compare op by op"]) == 4
