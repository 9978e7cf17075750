"""A work directory: the files that stages leave, which of them are up to date, and what is said of damaged ones."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, wraps
from importlib import metadata
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

import qhyvit_device
from qhyvit import files
from qhyvit.errors import InputError, QhyvitError
from qhyvit.progress import Log, Progress, silent
from qhyvit.registry import extensions
from qhyvit.tasks import task
from qhyvit.tasks.shared.layout import Layout
from qhyvit_device.arrays import Shape
from qhyvit_device.matching import matches
from qhyvit_device.preprocess import Preprocess

T = TypeVar("T")
P = ParamSpec("P")
LOCK = "lock"
FLOAT, FACTS, FOLDED, PLAN, CONSTANTS, MODEL, VERIFY, STATE, SAMPLES, LATENCY = (
    "float.tflite", "export.json", "folded.tflite", "plan.json", "plan.npz", "model.tflite", "verify.json",
    "state.json", "samples.npz", "latency.json",
)  # fmt: skip
OUTPUTS = "outputs.npz"  # of both files on the images of the last report
VELA = "vela.tflite"  # of targets with an Ethos-U: the file that Vela compiled
MADE_BY = {
    FLOAT: "export", FACTS: "export", FOLDED: "calibrate", PLAN: "calibrate", CONSTANTS: "calibrate",
    LATENCY: "calibrate", SAMPLES: "calibrate", MODEL: "convert", VERIFY: "verify", VELA: "verify", STATE: "the stage",
}  # fmt: skip
# what a result depends on besides this package's own code
TOOLS = ("torch", "timm", "litert-torch", "ai-edge-litert", "numpy", "pillow")
# what JSON files hold: of a name with "?" nothing or null is as good; [form] is a list of such
FORMS: dict[str, Any] = {
    FACTS: {
        "model": str, "task": str, "outputs": [{"name": str, "shape": list}], "classes": int, "input_shape": [int],
        "preprocess": dict, "weights": str, "versions": dict,
        "?float_error": float, "?float_limit": float, "?float_images": int, "?weights_sha256": str,
    },
    VERIFY: {
        "passed": bool, "checks": [{"name": str, "passed": bool, "detail": str}], "census": {"oldest_runtime": str},
        "sqnr_db": Mapping[str, float], "files": dict,
        "?target": dict, "?informs": [{"name": str, "detail": str}],
        "?against_float": {
            "images": int, "task": str, "alike": {"share": float, "text": str, "figures": Mapping[str, float]},
            "?each": Mapping[str, float],
        },
    },
    STATE: {},
}  # fmt: skip


@cache
def versions() -> dict[str, str]:
    """Versions of the tools as they are installed now; "none" of one that is not."""
    found = {}
    for name in TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


@cache
def code() -> str:
    """Hash of this package's own code, host and device stage, and of what other packages add to it."""
    total = hashlib.sha256()
    for folder in (Path(__file__).parent, Path(qhyvit_device.__file__).parent, *extensions()):
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*.py")):
            total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


@cache
def commit() -> str | None:
    """The commit that this package lies in, where it is a checkout of its own repository; None elsewhere."""
    place, git = Path(__file__), shutil.which("git")
    if git is None:
        return None
    for words in (("ls-files", "--error-unmatch", place.name), ("rev-parse", "HEAD")):
        done = subprocess.run([git, "-C", str(place.parent), *words], capture_output=True, text=True, check=False)
        if done.returncode:
            return None
    return done.stdout.strip()


def toolchain() -> dict[str, str]:
    """What made a result: versions of the tools, and the hash of our own code."""
    return {**versions(), "code": code()}


def default_preprocess(facts: Mapping[str, Any], mode: str | None = None) -> Preprocess:
    """Preprocessing of an exported model; ``mode`` is the resize mode that was asked for, None: crop."""
    raw = facts["preprocess"]
    return Preprocess(mode or "crop", raw["resize"], raw["interpolation"], tuple(raw["mean"]), tuple(raw["std"]))


def input_shape(facts: Mapping[str, Any]) -> Shape:
    """Height, width and channels of an exported model's input."""
    height, width, channels = facts["input_shape"]
    return height, width, channels


def _check(value: Any, form: Any, where: str) -> None:
    """Compare what a JSON file holds with its form.

    Raises:
        TypeError: it has another one; with the place.
    """
    if not matches(value, type(form) if isinstance(form, dict | list) else form, math.inf):
        raise TypeError(f"{where or 'all of it'} is not as it was written")
    if isinstance(form, dict):
        for name, inside in form.items():
            key = name.removeprefix("?")
            if key == name or value.get(key) is not None:
                _check(value.get(key), inside, f"{where}.{key}" if where else key)
    elif isinstance(form, list):
        for index, each in enumerate(value):
            _check(each, form[0], f"{where} {index + 1}")


def _object(name: str, content: bytes) -> dict[str, Any]:
    """A JSON object of the form that a file of this name has.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    found: dict[str, Any] = json.loads(content)
    _check(found, FORMS.get(name, {}), "")
    if name == FACTS:
        default_preprocess(found)
        input_shape(found)
        outputs = Layout.of_facts(found["outputs"])
        if not outputs.shapes or task(found["task"]).unfit(outputs):
            raise ValueError(f"its outputs are none of the task {found['task']}")
    return found


@dataclass
class Work:
    """A work directory. ``progress(what, share)`` and ``log(line)`` are told what happens.

    ``state.json`` holds a key for each finished stage: a hash of its options, its input files, and what ran.
    """

    folder: Path
    progress: Progress = field(default=silent)
    log: Log = field(default=silent)
    force: bool = False

    @contextlib.contextmanager
    def lock(self, *, wait: bool = False) -> Iterator[None]:
        """Work alone in the directory while the block runs.

        Where the block makes nothing, there is no directory behind it that was not there before.

        Raises:
            OutputError: another process is at work there and ``wait`` is False.
        """
        existed = self.folder.exists()
        with files.lock(self.folder / LOCK, wait=wait):
            try:
                yield
            finally:
                if not existed and files.only(self.folder, (LOCK,)):
                    shutil.rmtree(self.folder, ignore_errors=True)

    def read(self, name: str) -> bytes:
        """A stage's file.

        Raises:
            InputError: the stage that writes it has not run.
        """
        path = self.folder / name
        if not path.is_file():
            raise InputError(f"{path} does not exist; run the stage that makes it first ({MADE_BY.get(name, 'build')})")
        return files.read_bytes(path, name)

    def load(self, name: str, parse: Callable[[bytes], T]) -> T:
        """What ``parse`` makes of a stage's file.

        Raises:
            InputError: the stage that writes it has not run, or the file is damaged.
        """
        content = self.read(name)
        try:
            return parse(content)
        except Exception as error:  # damaged files raise anything
            lines = str(error).partition(";" if isinstance(error, QhyvitError) else "\0")[0].strip(" \"'").splitlines()
            what = lines[0][:100] if lines else type(error).__name__
            path, stage = self.folder / name, MADE_BY.get(name, "build")
            raise InputError(f"{path} is damaged ({what}): run {stage} again with --force") from error

    def json(self, name: str) -> dict[str, Any]:
        """A stage's JSON file.

        Raises:
            InputError: see :meth:`load`.
        """
        return self.load(name, lambda content: _object(name, content))

    @staticmethod
    def digest(key: Mapping[str, Any]) -> str:
        """Hash of what a stage depends on, the code and the tools that run included."""
        return files.sha256(json.dumps({"tools": toolchain(), **key}, sort_keys=True, default=str).encode())

    def stage(self, name: str, key: Mapping[str, Any], outputs: Sequence[str], make: Callable[[], None]) -> bool:
        """Run ``make`` unless this stage ran with the same key and its outputs are there; True if it ran.

        Raises:
            InputError: ``state.json`` is damaged, and ``force`` is not given.
        """
        state = {} if not (self.folder / STATE).is_file() else self._state()
        digest = self.digest(key)
        if not self.force and state.get(name) == digest and all((self.folder / o).is_file() for o in outputs):
            self.log(f"{name}: unchanged, kept")
            return False
        started = time.monotonic()
        make()
        state[name] = digest
        files.write_text(self.folder / STATE, json.dumps(state, indent=1) + "\n")
        self.log(f"{name}: done in {time.monotonic() - started:.0f} s")
        return True

    def _state(self) -> dict[str, Any]:
        try:
            return self.json(STATE)
        except InputError:
            if not self.force:
                raise
            return {}

    def hash(self, name: str) -> str:
        """Hash of a stage's file."""
        return files.sha256(self.read(name))


def alone(stage: Callable[Concatenate[Work, P], T]) -> Callable[Concatenate[Work, P], T]:
    """A stage that holds the lock of its work directory, see :meth:`Work.lock`."""

    @wraps(stage)
    def locked(work: Work, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with work.lock():
            return stage(work, *args, **kwargs)

    return locked


def state_digest(module: Any) -> str:
    """Hash of a module's structure and of all its parameters and buffers."""
    parts = [str(module).encode()]
    for name, value in module.state_dict().items():
        parts += [name.encode(), np.ascontiguousarray(value.detach().cpu().float().numpy()).tobytes()]
    return files.sha256(b"".join(parts))


def code_digest(model: Any, module: Any) -> str:
    """Hash of a factory's file and of the files of all classes inside: forward may change where no weight does."""
    homes = {type(part).__module__ for part in module.modules()}
    found = {getattr(sys.modules.get(home), "__file__", None) for home in homes}
    named = {model.rpartition(":")[0]} if isinstance(model, str) else set()
    paths = sorted(Path(p).resolve() for p in found | named if p and Path(p).is_file())
    return files.sha256(b"".join(p.read_bytes() for p in paths))
