"""Runs that are killed in front of their n-th change of the disk, each in a process forked from one that is warm.

What would take minutes or need a network has a stand-in: the converter gives a file made before, a sweep runs its jobs
in its own process, pip and Debian's packages are a few files. Clocks stand still, so that all bytes can be compared.
"""

import builtins
import io
import json
import os
import pickle
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.figure  # noqa: F401 - warm, as all that follows

from qhyvit import api, image, stages, wheelhouse
from qhyvit.config import BuildConfig
from qhyvit.data import VERIFY_IMAGES
from qhyvit.errors import OutputError
from qhyvit.methods import all_methods
from qhyvit.methods.shared import learning
from qhyvit.models import all_families
from qhyvit.models.shared import export, source
from qhyvit.stages import calibration
from qhyvit.sweep import child, jobs
from qhyvit.sweep.run import sweep
from qhyvit.verify import report  # noqa: F401
from qhyvit.work import Work
from tests._tiny import CLASSES, SIZE, pictures

all_methods()
all_families()
MODEL = f"{Path(__file__).with_name('_tiny.py')}:make"
SEED = 3
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {  # audit event -> where its path and its folder's descriptor stand among the arguments
    "os.mkdir": ((0, 2),), "os.remove": ((0, 1),), "os.rmdir": ((0, 1),), "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),), "os.symlink": ((1, 2),), "os.truncate": ((0, None),), "os.chmod": ((0, 2),),
}  # fmt: skip


class Killer:
    """Kills this process in front of change number ``at`` below ``root``; 0: never.

    A change is whatever Python tells its audit hooks of: files opened to be written, renamed, removed, made. A write
    counts as one more, in the middle of its bytes.
    """

    def __init__(self, root, at):
        self.root, self.at, self.count = str(root.resolve()), at, 0
        for module, name in ((builtins, "open"), (io, "open"), (os, "fdopen")):
            setattr(module, name, self._in_halves(getattr(module, name)))
        sys.addaudithook(self._hear)

    def point(self):
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _hear(self, event, args):
        if event == "open":
            found = isinstance(args[2], int) and args[2] & WRITES and self._mine(args[0])
        else:
            places = CHANGES.get(event, ())
            found = any(self._mine(args[path], -1 if folder is None else args[folder]) for path, folder in places)
        if found:
            self.point()

    def _mine(self, path, folder=-1):
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        path = os.fsdecode(path)
        if folder >= 0 and not os.path.isabs(path):
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
        return os.path.abspath(path).startswith(self.root + os.sep)

    def _in_halves(self, plain):
        def opened(file, *args, **kwargs):
            stream = plain(file, *args, **kwargs)
            return Halves(stream, self.point) if stream.writable() and self._mine(file) else stream

        return opened


class Halves:
    """A stream whose writes can be killed in the middle."""

    def __init__(self, stream, point):
        self._stream, self._point = stream, point

    def write(self, data):
        middle = len(data) // 2
        self._stream.write(data[:middle])
        self._stream.flush()
        self._point()
        self._stream.write(data[middle:])
        return len(data)

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __enter__(self):
        self._stream.__enter__()
        return self

    def __exit__(self, *error):
        return self._stream.__exit__(*error)

    def __iter__(self):
        return iter(self._stream)


# ---- commands: each goes on where it was killed when it is called again


def _config(root, given):
    return BuildConfig.from_cli({
        "model": MODEL, "images": given / "images", "count": 4, "seed": SEED, "out": root / "out",
        "work": root / "work", "min_agreement": 0.0, "options": {"rounds": 2, "learn": 2, "search_images": 3},
    })  # fmt: skip


def build(root, given, force=False):
    _unless_there(root / "out", lambda: api.build(_config(root, given), command="build", force=force))


def convert(root, given):
    stages.convert(Work(root / "work"))


def verify(root, given):
    stages.verify(Work(root / "work"), given / "images", VERIFY_IMAGES, SEED, None, 0.0)


def bundle(root, given, force=False):
    work = Work(root / "work")
    _unless_there(root / "out", lambda: stages.bundle(work, root / "out", given / "images", None, "build", force=force))


def wheels(root, given, force=False):
    target = wheelhouse.Platform()
    _unless_there(root / "wheels", lambda: wheelhouse.make(root / "wheels", target, _say, force=force))


def bundle_image(root, given, force=False):
    out = root / "image.tar"
    _unless_there(out, lambda: image.write_image(given / "bundle", out, "linux/arm64", _say, force=force))


def bundle_tarball(root, given):
    out = root / "board.tar"
    _unless_there(out, lambda: image.write_tarball(given / "bundle", out, wheelhouse.Platform(), _say))


def run_sweep(root, given):
    assert sweep(given / "sweep.toml", root / "sweep", InProcess(), _say, _say).failed == {}


def _unless_there(out, make):
    """A run that ended behind its last change left what it makes: the second one says so."""
    try:
        make()
    except OutputError as error:
        if str(error) != f"{out} exists; use --force to replace it, or another --out":
            raise


def _say(*_):
    pass


COMMANDS = {
    "build": build, "convert": convert, "verify": verify, "bundle": bundle, "sweep": run_sweep, "wheelhouse": wheels,
    "bundle-image": bundle_image, "bundle-tarball": bundle_tarball,
    "build --force": lambda root, given: build(root, given, force=True),
    "bundle --force": lambda root, given: bundle(root, given, force=True),
    "wheelhouse --force": lambda root, given: wheels(root, given, force=True),
    "bundle-image --force": lambda root, given: bundle_image(root, given, force=True),
}  # fmt: skip


# ---- stand-ins


class InProcess:
    """A pool that runs one job after the other in this process, with the files that a worker writes."""

    def run(self, every, folder, ended):
        jobs.subprocess = SimpleNamespace(Popen=Job, PIPE=None)
        for job in jobs.to_run(every, folder):
            jobs.run_in_child(job, str(folder), 1)
            ended(job, job.result(folder), "")
        return {}


class Job:
    """A process that is none."""

    def __init__(self, command, **_):
        self.stdin = io.BytesIO()

    def wait(self):
        child.work(json.loads(self.stdin.getvalue()))
        return 0

    def kill(self):
        pass


def _pip(*arguments):
    folder = Path(arguments[arguments.index("--dest") + 1])
    for name in ("numpy", "pillow") if "-r" in arguments else ("qhyvit",):
        (folder / f"{name}-1-any.whl").write_bytes(name.encode() * 1000)


def _tree(kind, _, folder):
    (folder / "usr").mkdir(parents=True)
    (folder / "usr" / kind).write_text(kind)


def _stand_in(given):
    exported = pickle.loads((given / "export.pickle").read_bytes())
    export.export = lambda *_: exported
    calibration.time = child.time = SimpleNamespace(monotonic=lambda: 0.0, process_time=lambda: 0.0)
    child.peak_memory_mib = lambda: 0.0
    learning.KEEP_SECONDS = 0.0
    wheelhouse._pip, wheelhouse._source, image._tree = _pip, lambda: None, _tree


# ---- what the processes do


def run(command, root, given, at):
    """A command, killed in front of change ``at``; how many there are is left in ``given``."""
    _stand_in(given)
    killer = Killer(root, at)
    COMMANDS[command](root, given)
    if not at:
        killer.root = "none of mine"
        (given / f"{root.name}.count").write_text(str(killer.count))


def prepare(given):
    """What all runs read: images, an exported model, the spec of a sweep."""
    pictures(given / "images", 6)
    pictures(given / "labelled", 5, seed=1)
    opened = source.open_source(MODEL, None, None, None, SEED, random_weights=False)
    exported = export.export(opened)
    assert (exported.facts["classes"], exported.facts["input_shape"]) == (CLASSES, [SIZE, SIZE, 3])
    (given / "export.pickle").write_bytes(pickle.dumps(exported))
    (given / "sweep.toml").write_text(
        f"models = [{{name = '{MODEL}'}}]\nmethods = ['minmax', 'percentile']\n[calibration]\nimages = 'images'\n"
        "count = 4\n[evaluation]\nimages = 'labelled'\n"
    )
