"""Wheelhouses and boards over SSH: by a stand-in for ssh that runs here, and by a real sshd (``make test-boards``)."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qhyvit import boards, wheelhouse
from qhyvit.boards import BoardError, RemoteBoard, check_models, table
from qhyvit.errors import InputError, OutputError, UsageError
from qhyvit.wheelhouse import INSTALL, LAUNCHER, Platform
from tests._board import HERE, own_wheels, put_remote_commands

BENCH = ["--runs", "2", "--seconds", "0", "--threads", "1"]


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """A board that is this machine with another home."""
    folder, home = tmp_path / "bin", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    put_remote_commands(folder)
    monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(home))
    return home


@pytest.fixture
def wheels(tmp_path):
    """A wheelhouse of the device stage alone; this Python has the rest."""
    return own_wheels(tmp_path / "wheels")


@pytest.fixture
def model(tmp_path, small_v1):
    path = tmp_path / "float.tflite"
    path.write_bytes(small_v1.tflite)
    return path


def test_a_board_is_measured_and_left_clean(ssh, wheels, model):
    lines = []
    found = RemoteBoard("pi@board").bench(
        [model, model.rename(model.with_name("b.tflite"))][1:], BENCH, wheels, lines.append
    )
    result = found["benches"][0]["models"][0]
    assert result["inference"]["count"] == 2
    assert lines == ["pi@board: installing the device stage", "pi@board: measuring"]
    assert [p.name for p in ssh.iterdir()] == [".cache"]
    (installed,) = (ssh / boards.THERE).iterdir()
    assert (installed / LAUNCHER).is_file()

    lines.clear()
    RemoteBoard("pi@board").bench([model.with_name("b.tflite")], BENCH, wheels, lines.append)
    assert lines == ["pi@board: measuring"]  # installed already


def test_another_wheelhouse_is_installed_beside_the_first(ssh, wheels, model):
    RemoteBoard("a").bench([model], BENCH, wheels, print)
    (wheels / "note.txt").write_text("newer")
    RemoteBoard("a").bench([model], BENCH, wheels, print)
    assert len(list((ssh / boards.THERE).iterdir())) == 2


@pytest.mark.parametrize(
    ("host", "words"),
    [("down", "down: ssh: connect to host down port 22: No route to host"), ("locked", "; try: ssh-copy-id locked")],
)
@pytest.mark.usefixtures("ssh")
def test_a_board_that_does_not_answer_is_named(host, words, wheels, model):
    with pytest.raises(BoardError, match=words.replace("(", r"\(")):
        RemoteBoard(host).bench([model], BENCH, wheels, print)


def test_what_was_copied_goes_even_where_the_bench_fails(ssh, wheels, model):
    model.write_bytes(b"not a model, but long enough to be read")
    with pytest.raises(BoardError, match=r"not a \.tflite model"):
        RemoteBoard("pi@board").bench([model], BENCH, wheels, print)
    assert [p.name for p in ssh.iterdir()] == [".cache"]


NOISY = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
[ "$1" = -- ] && shift
printf 'Welcome to OctoPi!\\r\\n\\nlast login: {3.11 aarch64 8} there\\n'
cd "$HOME"
sh -c "$2"
code=$?
printf 'bye [0]'
exit $code
"""


def test_a_shell_that_prints_a_banner_is_read_over(ssh, wheels, model):
    (ssh.parent / "bin" / "ssh").write_text(NOISY)
    board, lines = RemoteBoard("pi@octopi"), []
    assert board.target() == HERE
    for _ in range(2):
        found = board.bench([model], BENCH, wheels, lines.append)
        assert found["benches"][0]["models"][0]["inference"]["count"] == 2
    assert lines[1:] == ["pi@octopi: measuring"] * 2  # installed once
    assert [p.name for p in ssh.iterdir()] == [".cache"]
    assert board.ask("printf 'no line end'") == "no line end"
    assert board.ask("printf 'a\\nb\\n'") == "a\nb"
    assert board.ask("true") == ""
    with pytest.raises(BoardError, match="no such thing"):
        board.ask("echo no such thing >&2; exit 3")


ANSWERS = {
    "printf 'nothing to say\\n'": "its answer cannot be read: nothing to say",
    "true": "its answer cannot be read: nothing",
    "printf '\\377\\376'": "its answer cannot be read",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_cannot_be_read_is_one_line(ssh, wheels, model, answer):
    (ssh.parent / "bin" / "ssh").write_text(f"#!/bin/sh\n{answer}\n")
    with pytest.raises(BoardError, match=ANSWERS[answer]) as caught:
        RemoteBoard("pi@odd").bench([model], BENCH, wheels, print)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("said", ["3.11", "3.11 aarch64 8 more", "Python 2", "3.11 aarch64 x", "{}"])
def test_a_python_that_answers_otherwise_is_one_line(ssh, monkeypatch, said):
    monkeypatch.setattr(boards, "PROBE", f"print({said!r})")
    with pytest.raises(BoardError, match="its answer cannot be read"):
        RemoteBoard("pi@odd").target()


@pytest.mark.parametrize("printed", [
    "", "no json", "[]", "3", "null", '{"benches": 3}', "{}", "[" * 50_000, '{"benches": [3]}', '{"benches": [{}]}',
    '{"benches": [{"models": [], "warnings": []}]}',
    '{"benches": [{"models": [{"model": "m", "inference": {"p50": "x", "p95": 1}, "peak_memory_mib": null}],'
    ' "settings": {"threads": 1}, "warnings": []}]}',
    '{"benches": [{"models": [{"model": "m", "inference": {"p50": 1, "p95": 1}, "peak_memory_mib": null}],'
    ' "settings": {"threads": 1}, "warnings": [3]}]}',
])  # fmt: skip
def test_a_bench_that_gives_no_bench_is_one_line(ssh, wheels, model, monkeypatch, printed):
    asked = RemoteBoard.ask

    def ask(self, command):
        return printed if " bench " in command else asked(self, command)

    monkeypatch.setattr(RemoteBoard, "ask", ask)
    with pytest.raises(BoardError, match="gave no JSON"):
        RemoteBoard("pi@board").bench([model], BENCH, wheels, print)
    assert [p.name for p in ssh.iterdir()] == [".cache"]


@pytest.mark.usefixtures("ssh")
def test_a_32_bit_python_is_refused(monkeypatch):
    monkeypatch.setattr(boards, "PROBE", "print('3.11 armv7l 4')")
    with pytest.raises(BoardError, match="32-bit"):
        RemoteBoard("pi@old").target()


def test_hosts_that_are_options_and_paths_that_are_no_models_are_refused(tmp_path):
    for host in ("-oProxyCommand=touch x", " -oX", "", "pi@board;touch x", "$(touch x)", "a b", "a\nb", "`x`", "a|b",
                 "pi@-oX", "ssh://-oX", "ssh://pi@-oX:22"):  # fmt: skip
        with pytest.raises(UsageError, match="a host as ssh takes it"):
            RemoteBoard(host)
    for host in ("pi@board1", "board-2.local", "ssh://pi@board:2222", "pi@fe80::1%eth0", "[::1]", "a-b@c-d"):
        assert RemoteBoard(host).host == host
    for path in (tmp_path, tmp_path / "none.tflite"):
        with pytest.raises(InputError, match="no bundle folder"):
            check_models([path])


def test_one_table_for_all_boards():
    one = {"model": "a", "inference": {"p50": 2.0, "p95": 2.5}, "peak_memory_mib": 50.4}
    two = {**one, "model": "b", "peak_memory_mib": None, "ratio_to_a": {"median": 0.5, "low": 0.4, "high": 0.6}}
    result = {"benches": [{"models": [one, two], "settings": {"threads": 4}, "warnings": ["hot"]}]}
    columns, rows = table({"pi4": result, "pi5": result})
    assert len(rows) == 4
    assert all(len(row) == len(columns) for row in rows)
    assert rows[0] == ("pi4", "4", "a", "2.00", "2.50", "", "50", "1")
    assert rows[1][5:7] == ("0.50 (0.40 to 0.60)", "")


def test_wheels_are_fetched_for_the_board_and_not_for_this_machine(tmp_path, monkeypatch):
    calls = []

    def pip(*arguments):
        calls.append(arguments)
        names = ("ai_edge_litert", "numpy", "pillow") if arguments[0] == "download" else ("qhyvit",)
        place = Path(arguments[arguments.index("--dest" if arguments[0] == "download" else "--wheel-dir") + 1])
        for name in names:
            (place / f"{name}-1-any.whl").write_bytes(b"wheel")

    monkeypatch.setattr(wheelhouse, "_pip", pip)
    made = wheelhouse.make(tmp_path / "w", Platform("3.13", "aarch64"), print)
    assert [p.name.partition("-")[0] for p in made] == ["ai_edge_litert", "numpy", "pillow", "qhyvit"]
    fetched = calls[0]
    assert {"manylinux_2_27_aarch64", "manylinux_2_28_aarch64", "cp313", "3.13", "--no-deps"} <= set(fetched)
    assert not any("x86_64" in a for a in fetched)
    assert "@" not in (tmp_path / "w" / INSTALL).read_text().replace('"\\$@"', "").replace("$@", "")
    assert json.loads((tmp_path / "w" / wheelhouse.INDEX).read_text())["python"] == "3.13"
    with pytest.raises(OutputError, match="--force"):
        wheelhouse.make(tmp_path / "w", HERE, print)
    (tmp_path / "w" / LAUNCHER).write_text("unpacked where it lies")
    wheelhouse.make(tmp_path / "w", HERE, print, force=True)
    assert json.loads((tmp_path / "w" / wheelhouse.INDEX).read_text())["python"] == HERE.python

    def lost(*_):
        raise InputError("no network")

    monkeypatch.setattr(wheelhouse, "_pip", lost)
    with pytest.raises(InputError, match="no network"):
        wheelhouse.make(tmp_path / "w", Platform("3.13", "aarch64"), print, force=True)
    assert json.loads((tmp_path / "w" / wheelhouse.INDEX).read_text())["python"] == HERE.python  # the old one is there
    (tmp_path / "w" / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match="holds more"):
        wheelhouse.make(tmp_path / "w", HERE, print, force=True)
    for text in ("{}", "[]", "no json", '{"wheels": 3}'):
        (tmp_path / "app").mkdir(exist_ok=True)
        (tmp_path / "app" / wheelhouse.INDEX).write_text(text)
        with pytest.raises(OutputError, match="none of ours"):
            wheelhouse.make(tmp_path / "app", HERE, print, force=True)


@pytest.mark.parametrize("wrong", [("2.7", "aarch64"), ("3", "aarch64"), ("3.11", "armv7l")])
def test_boards_that_cannot_be_served_are_refused(wrong):
    with pytest.raises(UsageError):
        Platform(*wrong)


def test_wheels_of_another_python_are_not_unpacked(wheels, tmp_path):
    text = (wheels / INSTALL).read_text().replace(f'"{HERE.python}"', '"3.99"')
    (wheels / INSTALL).write_text(text)
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["sh", str(wheels / INSTALL), str(tmp_path / "to")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "these wheels are for Python 3.99" in done.stderr
    assert not (tmp_path / "to" / "site").exists()


def _sshd():
    found = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("no sshd here; make test-boards installs it")
    return found


@pytest.fixture
def loopback(tmp_path, monkeypatch):
    """The name of this machine's own sshd, on a free port, with a key made for this test."""
    daemon = _sshd()
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True)
    (keys / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/user.pub\n"
        f"PidFile {keys}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
    )
    process = subprocess.Popen([daemon, "-D", "-e", "-f", str(keys / "sshd_config")], stderr=subprocess.DEVNULL)
    config = keys / "ssh_config"
    config.write_text(
        f"Host board\n HostName 127.0.0.1\n Port {port}\n IdentityFile {keys}/user\n StrictHostKeyChecking no\n"
        f" UserKnownHostsFile {keys}/known\n"
    )
    shim = tmp_path / "bin"
    shim.mkdir()
    (shim / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    (shim / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim}:{os.environ['PATH']}")
    time.sleep(1)
    yield "board"
    process.terminate()
    process.wait()


@pytest.mark.boards
def test_a_real_sshd_and_real_wheels(loopback, tmp_path, model):
    board = RemoteBoard(loopback)
    target = board.target()
    wheels = tmp_path / "real"
    wheelhouse.make(wheels, target, print)
    found = board.bench([model], BENCH, wheels, print)
    assert found["benches"][0]["models"][0]["inference"]["count"] == 2
    assert found["benches"][0]["models"][0]["runtime"].startswith("ai-edge-litert")
    place = f"{boards.THERE}/{wheelhouse.digest(wheels)[:16]}"
    assert board.run(f"test -d {place}/site/numpy && echo there").strip() == b"there"  # its own, not this Python's
    board.run(f"rm -rf {place}")
