"""Updates of a bundle that is in use: killed at any moment, refused, taken back, and picked up by what runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from qhyvit_device import LiveModel, Model, cli, manifest, update
from qhyvit_device.errors import CheckFailedError, DeviceError, InputError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2")


def variant(bundle, target, model="m", version="1.0.0"):
    """A copy of a bundle with another name of its model."""
    shutil.copytree(bundle, target)
    raw = json.loads((target / "manifest.json").read_text())
    raw["model"], raw["versions"] = model, {"qhyvit": version}
    (target / "manifest.json").write_text(json.dumps(raw))
    return target


def damaged(bundle, target):
    """A bundle whose checksums are right and whose self test fails."""
    variant(bundle, target, "damaged")
    raw = json.loads((target / "manifest.json").read_text())
    raw["test"]["codes"][0] += 9
    (target / "manifest.json").write_text(json.dumps(raw))
    return target


def name_of(folder):
    return manifest.read_bundle(folder).manifest.model


@pytest.fixture
def place(bundle, tmp_path):
    """A board's folder with the old bundle, and the new one elsewhere."""
    variant(bundle, tmp_path / "live", "old")
    variant(bundle, tmp_path / "new", "new")
    return tmp_path


def test_an_update_replaces_the_bundle_and_keeps_the_old_one(place, capsys):
    (place / "new" / "notes.txt").write_text("not of the bundle")
    assert cli.main(["update", str(place / "live"), str(place / "new")]) == 0
    assert name_of(place / "live") == "new"
    assert name_of(place / "live.previous") == "old"
    assert not (place / "live" / "notes.txt").exists()
    assert cli.main(["update", str(place / "live"), "--back"]) == 0
    assert [name_of(place / name) for name in ("live", "live.previous")] == ["old", "new"]
    assert sorted(p.name for p in place.iterdir()) == [".live.lock", "live", "live.previous", "new"]
    assert cli.main(["update", str(place / "fresh"), str(place / "new")]) == 0  # where there was none
    assert name_of(place / "fresh") == "new"


@pytest.mark.parametrize("wrong", ["self test", "checksum", "no bundle", "fifo", "missing"])
def test_what_fails_its_checks_changes_nothing(place, bundle, wrong, capsys):
    new = place / "new"
    if wrong == "self test":
        shutil.rmtree(new)
        damaged(bundle, new)
    elif wrong == "checksum":
        (new / "labels.txt").write_text("others")
    elif wrong == "fifo":
        (new / "model.tflite").unlink()
        os.mkfifo(new / "model.tflite")
    else:
        shutil.rmtree(new)
        if wrong == "no bundle":
            new.mkdir()
    before = name_of(place / "live")
    assert cli.main(["update", str(place / "live"), str(new)]) == (1 if wrong in ("self test", "checksum") else 2)
    assert capsys.readouterr().err.count("\n") == 1
    assert name_of(place / "live") == before
    lock = [] if wrong in ("no bundle", "missing") else [".live.lock"]  # there was nothing to wait for
    assert sorted(p.name for p in place.iterdir() if p != new) == [*lock, "live"]


@pytest.mark.parametrize("which", ["live", "new"])
def test_a_version_of_too_many_digits_is_no_hindrance(place, bundle, which):
    shutil.rmtree(place / which)
    variant(bundle, place / which, which, "9" * 5000)
    if which == "live":
        with pytest.raises(InputError, match="--downgrade"):
            update.update(place / "live", place / "new")
    update.update(place / "live", place / "new", downgrade=which == "live")
    assert name_of(place / "live") == "new"


def test_a_fifo_in_the_place_of_the_lock_is_never_waited_for(place):
    os.mkfifo(place / ".live.lock")
    command = [sys.executable, "-m", "qhyvit_device", "update", "live", "new"]
    assert subprocess.run(command, cwd=place, capture_output=True, check=False, timeout=60).returncode == 0
    assert name_of(place / "live") == "new"


def test_what_fails_after_the_switch_is_taken_back(place, monkeypatch):
    checked = []

    def check(folder):
        checked.append(folder.name)
        if folder.name == "live":
            raise CheckFailedError("the disk broke")

    monkeypatch.setattr(update, "_check", check)
    with pytest.raises(CheckFailedError, match="the disk broke"):
        update.update(place / "live", place / "new")
    assert checked == [".live.next", "live"]
    assert name_of(place / "live") == "old"


def test_an_older_bundle_needs_the_flag(place, bundle, capsys):
    variant(bundle, place / "older", "older", "0.9.9")
    assert cli.main(["update", str(place / "live"), str(place / "older")]) == 2
    assert "--downgrade" in capsys.readouterr().err
    assert name_of(place / "live") == "old"
    assert cli.main(["update", str(place / "live"), str(place / "older"), "--downgrade"]) == 0
    assert name_of(place / "live") == "older"


def test_a_link_a_second_update_and_a_system_that_cannot_exchange_are_refused(place, monkeypatch):
    (place / "link").symlink_to("live")
    with pytest.raises(InputError, match="a link or no folder"):
        update.update(place / "link", place / "new")
    with update._alone(place / "live"), pytest.raises(DeviceError, match="at work"):
        update.update(place / "live", place / "new")
    with pytest.raises(InputError, match="no bundle before"):
        update.go_back(place / "live")
    monkeypatch.setattr(update, "_check", lambda folder: None)
    monkeypatch.setattr(update.ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(DeviceError, match="nothing was changed"):
        update.update(place / "live", place / "new")
    assert name_of(place / "live") == "old"


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from qhyvit_device import manifest, update
left = [int(sys.argv[3])]
def step(call):
    def counted(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return counted
# every call that changes the disk is a moment before which the process may die
Path.mkdir, Path.rename, Path.write_bytes = step(Path.mkdir), step(Path.rename), step(Path.write_bytes)
os.fsync, os.unlink, os.rmdir = step(os.fsync), step(os.unlink), step(os.rmdir)
update._exchange = step(update._exchange)
update._check = step(manifest.read_bundle)
update.update(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_killed_at_any_moment_the_folder_is_a_bundle_that_works(place, bundle):
    variant(bundle, place / "oldest", "oldest")
    seen, step = [], 0
    while True:
        for name in ("live", "live.previous"):
            shutil.rmtree(place / name, ignore_errors=True)
        shutil.copytree(place / "oldest", place / "live.previous")
        variant(bundle, place / "live", "old")
        command = [sys.executable, "-c", KILLED, place / "live", place / "new", str(step)]
        done = subprocess.run(list(map(str, command)), check=False, capture_output=True)
        seen.append(name_of(place / "live"))  # every checksum
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        if step % 8 == 0:
            assert Model.load(place / "live").classify(place / "live" / "test.png")
        step += 1
    assert step > 20
    assert seen == sorted(seen, reverse=True)  # old, then new
    assert set(seen) == {"old", "new"}
    update.update(place / "live", place / "new")  # what the killed ones left is in nobody's way
    left = sorted(p.name for p in place.iterdir())
    assert left == [".live.lock", "live", "live.previous", "new", "oldest"]


def test_a_live_model_takes_the_new_bundle_between_two_pictures(place):
    live = LiveModel(place / "live")
    picture = place / "new" / "test.png"
    before = live.current()
    assert before.manifest.model == "old"
    assert live.classify(picture)
    assert live.current() is before
    update.update(place / "live", place / "new")
    assert live.current().manifest.model == "new"
    assert before.classify(picture) == live.classify(picture)  # who holds the old one goes on
    (place / "live" / "manifest.json").write_text("{")
    assert live.classify(picture)
    assert "manifest" in str(live.refused)
    update.update(place / "live", place / "new")
    assert live.classify(picture)
    assert live.refused is None


def test_readers_never_see_half_of_two_bundles(place, bundle):
    """The labels differ: a mixture would fail its checksums."""
    labels = "\n".join(f"other {i}" for i in range(10)) + "\n"
    (place / "new" / "labels.txt").write_text(labels)
    raw = json.loads((place / "new" / "manifest.json").read_text())
    raw["checksums"]["labels.txt"] = manifest.sha256(place / "new" / "labels.txt")
    (place / "new" / "manifest.json").write_text(json.dumps(raw))
    shutil.copytree(place / "new", place / "live.previous")
    done, failed, names = threading.Event(), [], set()

    def read():
        while not done.is_set():
            try:
                found = manifest.read_bundle(place / "live")
                names.add((found.manifest.model, found.files["labels.txt"][:5]))
            except DeviceError as error:
                failed.append(str(error))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(200):
        update._exchange(place / "live.previous", place / "live")
    done.set()
    for reader in readers:
        reader.join()
    assert failed == []
    assert names <= {("old", b"shape"), ("new", b"other")}


def test_a_watch_goes_on_with_the_new_bundle(place):
    folder = place / "in"
    folder.mkdir()
    relabel = place / "new" / "labels.txt"
    relabel.write_text("\n".join(f"other {i}" for i in range(10)) + "\n")
    raw = json.loads((place / "new" / "manifest.json").read_text())
    raw["checksums"]["labels.txt"] = manifest.sha256(relabel)
    (place / "new" / "manifest.json").write_text(json.dumps(raw))
    command = [sys.executable, "-m", "qhyvit_device", "classify", place / "live", "--watch", folder, "--frames", "2"]
    pipe = subprocess.PIPE
    with subprocess.Popen(list(map(str, command)), stdout=pipe, stderr=pipe, text=True) as process:
        for line in process.stderr:
            if line.startswith("watching"):
                break
        shutil.copy(place / "new" / "test.png", folder / "a.png")
        assert "shape" in process.stdout.readline()
        update.update(place / "live", place / "new")
        shutil.copy(place / "new" / "test.png", folder / "b.png")
        assert "other" in process.stdout.readline()
        assert process.wait(60) == 0


@pytest.mark.parametrize("change", [update.update, lambda a, _: update.go_back(a)], ids=["update", "back"])
def test_of_a_mistake_no_lock_is_left(tmp_path, change):
    with pytest.raises(InputError):
        change(tmp_path / "b", tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []
