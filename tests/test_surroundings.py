"""Every command of ``qhyvit`` where streams, locale, folders and names are hostile: one line at most."""

import os
import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import typer

from qhyvit import cli, console
from qhyvit.graph.dump import dump

ARGUMENTS = {  # what a command needs before it looks at files
    "build": "mobilevit_xxs --random-weights --images {x} --out out", "bundle": "--work {x} --images {x} --out out",
    "calibrate": "--work {x} --images {x}", "compare": "{x} {x}", "convert": "--work {x}",
    "evaluate": "{x} --images {x}", "export": "mobilevit_xxs --weights {x} --work out", "inspect": "{x}",
    "latency-profile": "{x} --out out", "methods": "", "models": "", "report": "{x}", "sweep": "{x} --out out",
    "tasks": "", "verify": "--work {x} --images {x}", "wheelhouse": "--out {x}/out --machine {x}",
    "bench": "{x} --ssh {x}",
    "targets": "", "bundle-c": "{x} --out out", "card": "{x} --out out", "doctor": "", "zoo": "{x} --out out",
    "bundle-tflite": "{x} --out out", "bundle-web": "{x} --litertjs {x} --out out",
    "sign": "{x} --key {x}", "bundle-image": "{x} --out out", "bundle-tarball": "{x} --out out",
}  # fmt: skip
COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
LISTS = ("models", "methods", "tasks", "targets", "doctor")  # write to stdout without any file
EVIL = os.fsdecode(b"no\xff\x1b]0;pwn\x07\x1b[2J\nqhyvit: all is well")


def arguments(command, x):
    return [word.format(x=x) for word in [command, *ARGUMENTS[command].split()]]


def test_every_command_is_walked():
    assert sorted(ARGUMENTS) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hostile_name_is_one_harmless_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments(command, EVIL))
    out, err = capsys.readouterr()
    assert ended.value.code == (0 if command in LISTS else 2)
    assert len(err.splitlines()) == (0 if command in LISTS else 1), err
    assert all(c == "\n" or c.isprintable() for c in out + err)
    assert list(tmp_path.iterdir()) == []


def harmless(capsys):
    out, err = capsys.readouterr()
    assert all(c == "\n" or c.isprintable() for c in out + err)
    assert not any(line.startswith("qhyvit: all is well") for line in (out + err).splitlines())
    return out, err


def test_a_hostile_name_of_what_works_is_harmless(small_v1, tmp_path, capsys):
    (tmp_path / EVIL).write_bytes(small_v1.tflite)
    with pytest.raises(SystemExit) as ended:
        cli.main(["inspect", str(tmp_path / EVIL)])
    assert ended.value.code == 0
    assert "\\x1b]0;pwn" in harmless(capsys)[0]
    names = {i: replace(t, name=f"{EVIL}{i}") for i, t in small_v1.graph.tensors.items()}
    print(dump(replace(small_v1.graph, tensors=names)))
    harmless(capsys)


def test_a_fifo_in_the_place_of_a_model_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.tflite")
    for name in (".", "model.tflite"):
        command = [sys.executable, "-m", "qhyvit", "inspect", name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60)
        assert done.returncode == 2
        assert done.stderr == b"qhyvit: error: model.tflite: not a regular file\n"


def test_what_a_board_says_is_harmless(tmp_path, monkeypatch, capsys):
    model = {"model": EVIL, "inference": {"p50": 1, "p95": 1}, "peak_memory_mib": None}
    found = {"benches": [{"models": [model], "settings": {"threads": EVIL}, "warnings": [EVIL]}]}
    monkeypatch.setattr("qhyvit.boards.RemoteBoard.bench", lambda *_: found)
    (tmp_path / "m.tflite").write_text("x")
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", str(tmp_path / "m.tflite"), "--ssh", "pi@board"])
    assert ended.value.code == 0
    assert "pi@board: warning: no\\udcff\\x1b" in harmless(capsys)[1]


def test_tables_and_lines_show_text_as_it_is(capsys):
    console.table(f"{EVIL} [b]", (f"{EVIL} :smile:",), [(f"{EVIL}[red]",)])
    console.say(f"{EVIL}[red]:smile:")
    out, _ = harmless(capsys)
    assert "[b]" in out
    assert ":smile:" in out
    assert "[red]:smile:" in out.splitlines()[-1]
    with console.talk() as talk:
        talk.log(f"{EVIL}[red]:smile:")
    assert "[red]:smile:" in harmless(capsys)[1]


SURROUNDINGS = {
    "full stdout": "{} > /dev/full", "closed stdout": "{} >&-", "closed stdin": "{} <&-", "closed stderr": "{} 2>&-",
    "full stderr": "{} 2> /dev/full", "nothing open": "{} <&- >&- 2>&-",
    "ASCII": "export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0; {}", "no HOME": "unset HOME; {}",
    "no temporary folder": "export TMPDIR=/nowhere; {}",
}  # fmt: skip


def run(folder, surroundings, words):
    line = SURROUNDINGS[surroundings].format(f'{sys.executable} -m qhyvit "$@"')
    given = [os.fsencode(word) for word in words]
    return subprocess.run(["/bin/sh", "-c", line, "sh", *given], cwd=folder, capture_output=True, check=False)


def check(done, command, surroundings):
    assert done.returncode in (0, 2), done.stderr
    assert b"Traceback" not in done.stdout + done.stderr
    assert b"Exception ignored" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1, done.stderr
    if command in LISTS:
        assert (done.returncode == 2) == (surroundings in ("full stdout", "closed stdout", "nothing open"))


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_lists_go_where_they_can_or_end_in_one_line(surroundings, tmp_path):
    check(run(tmp_path, surroundings, ["models"]), "models", surroundings)


@pytest.mark.slow
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_ends_in_a_traceback(command, surroundings, tmp_path):
    check(run(tmp_path, surroundings, arguments(command, EVIL)), command, surroundings)


@pytest.mark.parametrize("limit", [120 << 20, 200 << 20, 1500 << 20], ids="{} bytes".format)
def test_too_little_memory_to_start_is_one_line(tmp_path, limit):
    """OpenBLAS waits for threads that it could not start, and torch's allocator ends the process."""
    command = [sys.executable, "-m", "qhyvit", "build", "mobilevit_xxs"]

    def small():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=small, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("qhyvit: error: cannot start: ulimit -v leaves ")
    assert done.stderr.count("\n") == 1
