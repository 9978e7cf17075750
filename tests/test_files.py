"""Nothing half-written is ever found under a final name."""

import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qhyvit import files
from qhyvit.errors import InputError, OutputError


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def stop_in_the_middle():
        with files.new_folder(tmp_path / "out") as folder:
            (folder / "half").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_in_the_middle()
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(tmp_path / "out") as folder:
        (folder / "whole").write_text("x")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["whole"]


def test_what_another_process_made_meanwhile_is_not_replaced(tmp_path):
    """Two builds with one --out: the second to end says so, unless it may replace a bundle."""

    def late(name, force, meanwhile):
        with files.new_folder(tmp_path / name, force=force) as folder:
            meanwhile(tmp_path / name)
            (folder / "late").write_text("x")

    with pytest.raises(OutputError, match="exists; use --force"):
        late("out", False, bundle_in)
    assert files.holds_a_bundle(tmp_path / "out")
    late("out", True, lambda _: None)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["late"]
    with pytest.raises(OutputError, match="none of ours"):
        late("b", True, lambda folder: (folder / "photos").mkdir(parents=True))
    assert (tmp_path / "b" / "photos").is_dir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "out"]


WEB_APP = {"name": "shop", "icons": [{"src": "a.png"}], "start_url": "/"}


def bundle_in(folder):
    """The files of a bundle, with a manifest that names them."""
    from qhyvit_device import manifest as manifests
    from qhyvit_device.manifest import Input, Manifest, Output, SelfTest
    from qhyvit_device.preprocess import Preprocess

    folder.mkdir()
    names = ("model.tflite", "labels.txt", "test.png")
    for name in names:
        (folder / name).write_text("x")
    made = Manifest(
        "m", "integer", Input(8, 8, "int8", 0.1, 0), (Output("logits", (1, 3), "int8", 0.1, 0),),
        Preprocess("crop", 9, "bicubic"),
        SelfTest("test.png", (1, 2, 3), "x86_64", "r"), {name: manifests.sha256(folder / name) for name in names},
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifests.dumps(made))
    return folder


@pytest.mark.parametrize("manifest", [None, "{}", json.dumps(WEB_APP), "no json", "[" * 9999, '{"schema_version": 1}'])
def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path, manifest):
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "cat.jpg").write_text("x")
    if manifest is not None:
        (precious / "manifest.json").write_text(manifest)
    with pytest.raises(OutputError, match="use --force"):
        files.check_free(precious, force=False)
    with pytest.raises(OutputError, match="none of ours"):
        files.check_free(precious, force=True)
    with pytest.raises(OutputError, match="none of ours"), files.new_folder(precious, force=True):
        pass
    assert (precious / "cat.jpg").read_text() == "x"


def test_a_bundle_is_replaced_when_forced_unless_it_holds_more(tmp_path):
    ours = bundle_in(tmp_path / "B")
    (ours / ".DS_Store").write_text("x")
    files.check_free(ours, force=True)
    (ours / "main.py").write_text("x")
    with pytest.raises(OutputError, match="holds more"):
        files.check_free(ours, force=True)
    (ours / "main.py").unlink()
    with files.new_folder(ours, force=True) as folder:
        (folder / "new").write_text("x")
    assert [p.name for p in ours.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["B"]


def test_a_link_is_not_replaced(tmp_path):
    bundle_in(tmp_path / "B")
    (tmp_path / "link").symlink_to(tmp_path / "B")
    (tmp_path / "lost").symlink_to(tmp_path / "none")
    for name in ("link", "lost"):
        with pytest.raises(OutputError, match="is a link"):
            files.check_free(tmp_path / name, force=True)


@pytest.mark.parametrize("step", [1, 2])
def test_the_old_folder_stays_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch, step):
    ours, calls, rename = bundle_in(tmp_path / "B"), [], Path.rename

    def failing(self, target):
        calls.append(self)
        if len(calls) == step:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="Input/output"), files.new_folder(ours, force=True) as folder:
        (folder / "new").write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == ["B"]
    assert (ours / "model.tflite").read_text() == "x"


def test_a_file_is_no_folder_and_replaced_only_when_forced(tmp_path):
    (tmp_path / "a").write_text("x")
    files.check_file(tmp_path / "a", force=True)
    files.check_file(tmp_path / "new", force=False)
    for wrong, force in ((tmp_path, True), (tmp_path / "a", False), (tmp_path / "a" / "b", True)):
        with pytest.raises(OutputError):
            files.check_file(wrong, force=force)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("a"), lambda path: path.symlink_to("none")],
                         ids=["fifo", "link", "lost link"])  # fmt: skip
def test_what_is_no_regular_file_is_not_replaced_by_one(tmp_path, make):
    """A device's node, like /dev/full, stands here as a FIFO."""
    (tmp_path / "a").write_text("x")
    make(tmp_path / "b")
    with pytest.raises(OutputError, match="not replaced"):
        files.check_file(tmp_path / "b")


def test_texts_are_utf8_and_a_mark_at_their_start_is_read_over(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"\xef\xbb\xbfa\nb")
    assert files.read_text(path, "text") == "a\nb"
    for wrong in ("caf\xe9".encode("latin-1"), "a".encode("utf-16")):
        path.write_bytes(b"a\n" + wrong)
        with pytest.raises(InputError, match="line 2: not UTF-8"):
            files.read_text(path, "text")


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="not a writable folder"):
        files.check_free(tmp_path / "file" / "out", force=False)


def test_a_full_disk_leaves_nothing(tmp_path):
    # a limit on file size stands for a full disk: the system refuses the bytes in the middle of the write
    script = (
        "import resource, signal, sys; from pathlib import Path; from qhyvit import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    files.write_bytes(Path(sys.argv[1]) / 'big', bytes(100000))\n"
        "except files.OutputError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


KILLED = """
import sys, os, signal
from pathlib import Path
from qhyvit import files
target = Path(sys.argv[1])
with files.new_folder(target) as folder:
    (folder / "half").write_text("x")
    print(folder.name, flush=True)
    if sys.argv[2] == "wait":
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_folders_of_killed_processes_are_removed_and_those_of_others_are_not(tmp_path):
    target, other = tmp_path / "out", tmp_path / ".out2.12345678"
    other.mkdir()
    command = [sys.executable, "-c", KILLED, str(target)]
    done = subprocess.run([*command, "stop"], capture_output=True, text=True, check=False)
    left = tmp_path / done.stdout.strip()
    assert (left / "half").is_file()
    with subprocess.Popen([*command, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living:
        its = tmp_path / living.stdout.readline().strip()
        assert not left.exists()
        with files.new_folder(target) as folder:
            (folder / "whole").write_text("x")
        assert (its / "half").is_file()  # at work still
        living.kill()
    with files.new_folder(tmp_path / "out", force=True, ours=lambda folder: True) as folder:
        assert not its.exists()
    assert other.is_dir()


WRITING = """
import sys, os, signal
from pathlib import Path
from qhyvit import files
def stop(source, target):
    print(Path(source).name, flush=True)
    if sys.argv[2] == "stop":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
files.os.replace = stop
files.write_bytes(Path(sys.argv[1]), b"x")
"""


def test_files_of_killed_processes_are_removed_and_those_of_others_are_not(tmp_path):
    target, others = tmp_path / "f", [tmp_path / name for name in (".f.mine", ".f2.0123abcd", ".f.0123abc")]
    for path in others:
        path.write_text("x")
    command = [sys.executable, "-c", WRITING, str(target)]
    left = tmp_path / subprocess.run([*command, "stop"], capture_output=True, text=True, check=False).stdout.strip()
    assert left.read_bytes() == b"x"
    with subprocess.Popen([*command, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living:
        its = tmp_path / living.stdout.readline().strip()
        assert not left.exists()
        files.write_bytes(target, b"y")
        assert its.exists()  # at work still
        living.kill()
    files.write_bytes(target, b"z")
    assert sorted(tmp_path.iterdir()) == sorted([target, *others])


def test_a_folder_that_was_moved_aside_is_removed_once_the_new_one_is_there(tmp_path):
    target, aside, own = tmp_path / "out", tmp_path / ".out.old.k_3zcx1a", tmp_path / ".out.backup"
    own.mkdir()
    (aside / "out").mkdir(parents=True)
    with files.new_folder(target):
        assert (aside / "out").is_dir()  # the only one there is
    assert sorted(tmp_path.iterdir()) == sorted([target, own])


def test_files_have_the_mode_that_the_users_umask_gives(tmp_path):
    for mask, expected in ((0o022, 0o644), (0o077, 0o600), (0o002, 0o664)):
        before = os.umask(mask)
        try:
            files.write_bytes(tmp_path / "f", b"x")
            with files.new_folder(tmp_path / f"d{mask}") as folder:
                (folder / "whole").write_text("x")
        finally:
            os.umask(before)
        assert (tmp_path / "f").stat().st_mode & 0o777 == expected
        assert (tmp_path / f"d{mask}").stat().st_mode & 0o777 == 0o777 & ~mask


def test_an_array_that_claims_more_than_there_is_memory_is_damaged(tmp_path):
    import io
    import zipfile

    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }" % (1 << 50)
    header = header.ljust(117) + b"\n"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("names.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InputError, match="damaged"):
        files.unpack_arrays(stream.getvalue(), "plan.npz")


@pytest.mark.parametrize("what", ["fifo", "device", "folder"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, what):
    path = tmp_path / "weights.pth"
    {"fifo": os.mkfifo, "device": lambda p: p.symlink_to("/dev/zero"), "folder": Path.mkdir}[what](path)
    with pytest.raises(InputError, match=r"^cannot read weights file .*: (not a regular file|a folder, not a file)$"):
        files.read_bytes(path, "weights file")


def test_settings_may_come_from_a_process(tmp_path):
    path = tmp_path / "settings"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_text("seed = 3"))
    writer.start()
    assert files.read_bytes(path, "settings", pipe=True) == b"seed = 3"
    writer.join()
