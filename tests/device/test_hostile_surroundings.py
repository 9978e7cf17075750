"""Every command of ``qhyvit-device`` where stdin, stdout, stderr, locale, folders or names are not what they should be.

One line at most, a known exit code, no traceback; and no control character of others reaches a terminal.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

from qhyvit_device import cli, manifest, terminal
from qhyvit_device.terminal import shown

PYTHON = f"{sys.executable} -m qhyvit_device"
COMMANDS = {
    "classify": "classify B B/test.png", "classify a folder": "classify B pictures --json", "info": "info",
    "info of a bundle": "info B", "info as JSON": "info B --json", "once": "classify B B/test.png --trust once",
    "bench": "bench B --runs 1 --seconds 0 --no-memory", "bench as JSON": "bench B --runs 1 --seconds 0 --json",
    "version": "--version", "help": "classify --help", "wrong": "classify B x.png --top none", "none": "",
    "stdin": "classify B -", "watch": "classify B --watch pictures --frames 1", "missing": "classify nothing x.png",
}  # fmt: skip
NO_OUTPUT = {"watch", "wrong", "none", "missing", "stdin"}  # they write nothing to stdout: they fail, or wait
SURROUNDINGS = {
    "full stdout": "{} > /dev/full", "closed stdout": "{} >&-", "closed stdin": "{} <&-", "closed stderr": "{} 2>&-",
    "full stderr": "{} 2> /dev/full", "nothing open": "{} <&- >&- 2>&-", "reader gone": "{} | true",
    "ASCII": "export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0; {}", "no HOME": "unset HOME; {}",
    "no temporary folder": "export TMPDIR=/nowhere; {}", "no PATH": "unset PATH; {}", "few files": "ulimit -n 16; {}",
    "no files": "ulimit -f 0; {}",
}  # fmt: skip
# a third of all pairs runs on every change: every command, and every surrounding with several of them
CASES = [
    pytest.param(around, command, id=f"{command}-{around}", marks=() if (i + j) % 3 == 0 else pytest.mark.slow)
    for i, around in enumerate(SURROUNDINGS) for j, command in enumerate(COMMANDS)
]  # fmt: skip


@pytest.fixture
def place(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "B")
    (tmp_path / "pictures").mkdir()
    shutil.copy(bundle / "test.png", tmp_path / "pictures" / "ä\udcff.png")
    return tmp_path


def run(place, surroundings, command):
    """(exit code, stdout, stderr); a watch is ended by a picture that appears."""
    called = f"{PYTHON} {COMMANDS[command]}"
    piped = "|" in SURROUNDINGS[surroundings]
    line = SURROUNDINGS[surroundings].format(f"({called}; echo $? > code)" if piped else called)
    process = subprocess.Popen(["/bin/sh", "-c", line], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               stdin=subprocess.DEVNULL)  # fmt: skip
    if command == "watch":
        for i in range(600):
            (place / "pictures" / f"{i}.jpg").write_text("no picture")
            try:
                process.wait(0.1)
                break
            except subprocess.TimeoutExpired:
                continue
    out, err = process.communicate(timeout=120)
    code = int((place / "code").read_text()) if piped else process.returncode
    return code, out, err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the shell's redirections")
@pytest.mark.parametrize(("surroundings", "command"), CASES)
def test_nothing_ends_in_a_traceback(place, surroundings, command):
    code, out, err = run(place, surroundings, command)
    assert code in (0, 1, 2), (code, err)
    assert b"Traceback" not in out + err
    assert b"Exception ignored" not in err
    lines = [line for line in err.splitlines() if not line.startswith((b"watching", b"INFO: "))]
    assert len(lines) <= 1, err
    if code and "stderr" not in surroundings and surroundings != "nothing open":
        assert lines[0].startswith(b"qhyvit-device: error: ")
        assert b"fault of qhyvit" not in lines[0]
    if surroundings in ("full stdout", "closed stdout", "nothing open") and command not in NO_OUTPUT:
        assert code == 2
    if command == "classify" and surroundings in ("ASCII", "no HOME", "no PATH", "closed stdin", "few files"):
        assert code == 0
        assert out.startswith(b"B/test.png\n")


EVIL = "\x1b]0;pwn\x07\x1b[2J\x9b1m\rx\nself test   passed\u202e\u2028"


def relabelled(place, label, model):
    """The bundle with other labels and another name of the model."""
    found = manifest.load(place / "B" / "manifest.json")
    names = [label, *(f"{label}{i}" for i in range(1, found.classes))]
    (place / "B" / "labels.txt").write_text("\n".join(names))
    raw = json.loads((place / "B" / "manifest.json").read_text())
    raw["model"] = model
    raw["checksums"]["labels.txt"] = manifest.sha256(place / "B" / "labels.txt")
    (place / "B" / "manifest.json").write_text(json.dumps(raw))


def harmless(text):
    return all(c == "\n" or c.isprintable() for c in text)


def test_no_control_character_of_others_reaches_the_terminal(place, capsys, monkeypatch):
    relabelled(place, EVIL.replace("\n", "").replace("\r", "").replace("\u2028", ""), EVIL)
    bad = place / f"bad{EVIL}\udcff.png"
    good = place / f"good{EVIL}\udcff.png"
    bad.write_text("no picture")
    shutil.copy(place / "B" / "test.png", good)
    assert cli.main(["classify", str(place / "B"), str(good), str(bad)]) == 1
    assert cli.main(["info", str(place / "B")]) == 0
    renamed = place / f"B{EVIL}"
    (place / "B").rename(renamed)
    assert cli.main(["bench", str(renamed), "--runs", "1", "--seconds", "0", "--no-memory"]) == 0
    assert cli.main(["classify", str(renamed / EVIL), str(good)]) == 2
    assert cli.main(["classify", EVIL]) == 2
    assert cli.main([EVIL]) == 2
    out, err = capsys.readouterr()
    assert harmless(out + err)
    assert "\\x1b]0;pwn\\x07" in out
    assert "\\udcff" in out
    assert not any(line.startswith("self test   passed") for line in (out + err).splitlines())


def test_json_escapes_all_of_it(place, capsys):
    relabelled(place, "\x1b[2J\x9bé", EVIL)
    assert cli.main(["classify", str(place / "B"), str(place / "B" / "test.png"), "--top", "10", "--json"]) == 0
    out = capsys.readouterr().out
    assert harmless(out)
    assert out.isascii()
    assert json.loads(out)["model"] == EVIL


@pytest.mark.parametrize(("text", "expected"), [
    ("plain text, äöü 中文 🙂", "plain text, äöü 中文 🙂"), ("a\nb\tc", "a\\nb\\tc"), ("\x1b[0m", "\\x1b[0m"),
    ("\udcff", "\\udcff"), ("\u202e", "\\u202e"), (os.fsdecode(b"\xff\x9b"), "\\udcff\\udc9b"),
])  # fmt: skip
def test_text_is_shown_as_it_is_and_the_rest_escaped(text, expected):
    assert shown(text) == expected


def test_many_pictures_and_memory_errors_are_one_line(bundle, capsys, monkeypatch):
    monkeypatch.setattr(terminal, "prepare", lambda: (_ for _ in ()).throw(MemoryError()))
    assert cli.main(["info"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "a\0b.png", "\udcff" * 200])
def test_names_that_no_file_can_have_are_one_line(bundle, name, capsys):
    assert cli.main(["classify", str(bundle), name]) == 2
    assert cli.main(["classify", name, name]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 2
    assert "fault of qhyvit" not in err
    assert all(line.startswith("qhyvit-device: error: ") for line in err.splitlines())
