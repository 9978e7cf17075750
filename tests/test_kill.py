"""Commands that are killed at any moment: the same command again gives the bytes of a run that nobody killed."""

import hashlib
import json
import multiprocessing
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import _kill

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests._kill"])
AFTER = {  # what a command needs, and what it writes over
    "build": (), "convert": ("calibrated",), "verify": ("converted",), "bundle": ("verified",), "sweep": (),
    "wheelhouse": (), "bundle-image": (), "bundle-tarball": (), "build --force": ("built",),
    "bundle --force": ("built",), "wheelhouse --force": ("wheels",), "bundle-image --force": ("image",),
}  # fmt: skip
KILLED = -9


def process(function, *args):
    """Exit code of a function in a process of its own."""
    started = CONTEXT.Process(target=function, args=args)
    started.start()
    started.join()
    return started.exitcode


def tree(folder):
    """Name -> content of every file and folder (None), hidden ones included; locks hold nothing."""
    found = {p.relative_to(folder).as_posix(): None if p.is_dir() else p.read_bytes() for p in folder.rglob("*")}
    return {name: content for name, content in found.items() if Path(name).name != "lock"}


def state(folder):
    """Hash of a tree, whatever the random part of temporary names."""
    named = {re.sub(r"\.[0-9a-z_]{8}(?=/|$)", ".*", name): content for name, content in tree(folder).items()}
    return hashlib.sha256(repr(sorted(named.items())).encode()).hexdigest()


@dataclass
class Scene:
    """Where commands are killed."""

    given: Path
    before: dict[str, Path] = field(default_factory=dict)

    def start(self, command, name):
        """A folder in front of ``command``."""
        root = self.given.parent / name
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for needed in AFTER[command]:
            shutil.copytree(self.before[needed], root, dirs_exist_ok=True)
        return root

    def keep(self, command, names):
        """Run ``command`` and keep what is there then as ``names``."""
        root = self.start(command, f"after {command}")
        assert process(_kill.run, command, root, self.given, 0) == 0
        for name in names:
            self.before[name] = root
        return root


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    found = Scene(tmp_path_factory.mktemp("kill") / "given")
    found.given.mkdir()
    assert process(_kill.prepare, found.given) == 0
    whole = found.keep("build", ["built"])
    shutil.copytree(whole / "out", found.given / "bundle")
    found.before |= {name: found.given.parent / name for name in ("calibrated", "converted", "verified")}
    for name, gone in (("verified", ()), ("converted", ("verify",)), ("calibrated", ("verify", "convert"))):
        shutil.copytree(whole / "work", found.before[name] / "work")
        without(found.before[name] / "work", gone)
    found.keep("wheelhouse", ["wheels"])
    found.keep("bundle-image", ["image"])
    return found


def without(work, stages):
    """Take back what ``stages`` made."""
    made = {"verify": "verify.json", "convert": "model.tflite"}
    kept = json.loads((work / "state.json").read_text())
    for stage in stages:
        (work / made[stage]).unlink()
        del kept[stage]
    (work / "state.json").write_text(json.dumps(kept, indent=1) + "\n")


def kill_at(scene, command):
    """Kill ``command`` in front of each of its changes, and go on each time.

    Where the disk is as it was at another point, going on from there was tried already. Returns the number of changes,
    and of different states of the disk.
    """
    root = scene.start(command, "root")
    assert process(_kill.run, command, root, scene.given, 0) == 0
    total, expected, seen = int((scene.given / f"{root.name}.count").read_text()), tree(root), set()
    for at in range(1, total + 1):
        scene.start(command, root.name)
        assert process(_kill.run, command, root, scene.given, at) == KILLED, at
        left = state(root)
        if left in seen:
            continue
        seen.add(left)
        assert process(_kill.run, command, root, scene.given, 0) == 0, at
        found = tree(root)
        different = sorted(n for n in found.keys() | expected.keys() if found.get(n, 0) != expected.get(n, 0))
        assert not different, (command, at, different)
    return total, len(seen)


@pytest.mark.parametrize("command", ["convert", "wheelhouse --force", "bundle-image --force"])
def test_a_command_that_is_killed_anywhere_goes_on_to_the_same_bytes(scene, command):
    total, states = kill_at(scene, command)
    assert total >= states > 3


@pytest.mark.slow
@pytest.mark.parametrize("command", AFTER)
def test_every_command_that_is_killed_anywhere_goes_on_to_the_same_bytes(scene, command):
    total, states = kill_at(scene, command)
    print(f"\n{command}: killed at {total} changes, {states} states of the disk")
    assert total >= states > 3
