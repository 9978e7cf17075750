"""What a sweep is made of: a TOML file, read into types, every mistake told in one line."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from qhyvit import files
from qhyvit.errors import UsageError
from qhyvit.options import SEED

T = TypeVar("T")
PROFILES = ("integer", "cpu")
MODES = ("crop", "squash")


@dataclass(frozen=True)
class ModelSpec:
    """A model as ``qhyvit export`` takes it; ``label`` names it in the results."""

    name: str
    label: str
    weights: Path | None
    classes: int | None
    input_size: int | None
    random_weights: bool = False


@dataclass(frozen=True)
class MethodSpec:
    """A method with options that differ from its defaults; ``label`` names the pair in the results."""

    name: str
    label: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class ImagesSpec:
    """A folder of images, how many of them, and how they are resized (None: as the folder or the model says)."""

    folder: Path
    count: int | None
    resize_mode: str | None
    labels: Path | None = None


@dataclass(frozen=True)
class Spec:
    """Every model by every method, number of bits, seed and profile.

    ``latency``: a latency profile, or a bench file to fit one to; None: the profile of the package.
    """

    models: tuple[ModelSpec, ...]
    methods: tuple[MethodSpec, ...]
    bits: tuple[int, ...]
    seeds: tuple[int, ...]
    profiles: tuple[str, ...]
    calibration: ImagesSpec
    evaluation: ImagesSpec
    latency: Path | None = None


def near(word: str, known: Iterable[str]) -> str:
    """``; near: ...`` or all that is known, to end a message with."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f"; near: {', '.join(close)}" if close else f"; known: {', '.join(names)}"


class _Table:
    """A table of the file; each value is taken once, and what is left in the end is a mistake."""

    def __init__(self, raw: Any, where: str, base: Path) -> None:
        if not isinstance(raw, dict):
            raise UsageError(f"{where} must be a table, got {raw!r}")
        self._raw, self._where, self._base, self._known = dict(raw), where, base, list[str]()

    def take(self, key: str, kind: type[T], default: T | None = None, *, need: bool = False) -> T | None:
        self._known.append(key)
        if key not in self._raw:
            if need:
                raise UsageError(f"{self._where} needs {key!r}")
            return default
        value = self._raw.pop(key)
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise UsageError(f"{self._where}: {key} must be {_words(kind)}, got {value!r}")
        return value

    def text(self, key: str) -> str:
        return str(self.take(key, str, need=True))

    def positive(self, key: str, default: int | None = None) -> int | None:
        value = self.take(key, int, default)
        if value is not None and value < 1:
            raise UsageError(f"{self._where}: {key} must be 1 or more, got {value}")
        return value

    def path(self, key: str, *, need: bool = False) -> Path | None:
        value = self.take(key, str, need=need)
        return None if value is None else (self._base / value).resolve()

    def items(self, key: str, default: Sequence[Any] = ()) -> list[Any]:
        """A list with something in it, and nothing twice."""
        found = self.take(key, list, list(default), need=not default) or []
        if not found:
            raise UsageError(f"{self._where}: {key} is an empty list: there is nothing to run")
        written = [json.dumps(v, sort_keys=True, default=str) for v in found]
        for i, value in enumerate(found):
            if written[i] in written[:i]:
                raise UsageError(f"{self._where}: {key} has {value!r} twice")
        return found

    def end(self) -> None:
        if self._raw:
            key = next(iter(self._raw))
            raise UsageError(f"{self._where} has no key {key!r}{near(key, self._known)}")


def _words(kind: type) -> str:
    names = {str: "a text", int: "a whole number", list: "a list", dict: "a table", bool: "true or false"}
    return names.get(kind, kind.__name__)


def read_spec(path: Path) -> Spec:
    """Read a spec; paths in it are relative to it.

    Raises:
        InputError, UsageError: unreadable, no TOML, an unknown key, name or value, an empty list.
    """
    try:
        raw = tomllib.loads(files.read_bytes(path, "sweep").decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error
    base = path.resolve().parent
    top = _Table(raw, path.name, base)
    models = tuple(_model(m, f"{path.name}: model {i}", base) for i, m in enumerate(top.items("models"), 1))
    methods = tuple(_method(m, f"{path.name}: method {i}", base) for i, m in enumerate(top.items("methods"), 1))
    spec = Spec(
        models, methods, tuple(top.items("bits", [8])), tuple(top.items("seeds", [0])),
        tuple(top.items("profiles", ["integer"])),
        _images(top.take("calibration", dict, need=True), f"{path.name}: calibration", base, labelled=False),
        _images(top.take("evaluation", dict, need=True), f"{path.name}: evaluation", base, labelled=True),
        top.path("latency_profile"),
    )  # fmt: skip
    top.end()
    _check(spec, path.name)
    return spec


def _model(raw: Any, where: str, base: Path) -> ModelSpec:
    from qhyvit.models import all_families
    from qhyvit.models._source import is_own

    table = _Table({"name": raw} if isinstance(raw, str) else raw, where, base)
    name = table.text("name")
    known = [v for f in all_families().values() for v in f.variants]
    if is_own(name):
        place, _, function = name.partition(".py:")
        name = f"{(base / place).resolve()}.py:{function}"
    elif name not in known and not name.startswith("timm/"):
        raise UsageError(f"{where}: unknown model {name!r}{near(name, known)}")
    label = table.take("label", str) or name.rpartition(":")[2]
    found = ModelSpec(name, label, table.path("weights"), table.positive("classes"), table.positive("input_size"),
                      table.take("random_weights", bool) or False)  # fmt: skip
    table.end()
    if not is_own(name) and (found.weights is None) != found.random_weights:
        raise UsageError(f"{where}: {name} needs either weights or, for a trial, random_weights = true")
    if is_own(name) and found.random_weights:
        raise UsageError(f"{where}: random_weights is for names; a factory's module keeps its own weights")
    return found


def _method(raw: Any, where: str, base: Path) -> MethodSpec:
    from qhyvit.methods import all_methods

    table = _Table({"name": raw} if isinstance(raw, str) else raw, where, base)
    name, options = table.text("name"), table.take("options", dict) or {}
    if name not in all_methods():
        raise UsageError(f"{where}: unknown method {name!r}{near(name, all_methods())}")
    all_methods()[name].complete(options)
    changed = ", ".join(f"{k}={v}" for k, v in options.items())
    label = table.take("label", str) or (f"{name} ({changed})" if changed else name)
    table.end()
    return MethodSpec(name, label, options)


def _images(raw: Any, where: str, base: Path, *, labelled: bool) -> ImagesSpec:
    table = _Table(raw, where, base)
    folder, count = table.path("images", need=True), table.positive("count", None if labelled else 128)
    mode = table.take("resize_mode", str)
    if mode is not None and mode not in MODES:
        raise UsageError(f"{where}: resize_mode is {mode!r}{near(mode, MODES)}")
    labels = table.path("labels") if labelled else None
    table.end()
    assert folder is not None
    return ImagesSpec(folder, count, mode, labels)


def _check(spec: Spec, where: str) -> None:
    """Values that only together, or only from a list, are wrong."""
    for key, values, kind in (("bits", spec.bits, int), ("seeds", spec.seeds, int), ("profiles", spec.profiles, str)):
        for value in values:
            if not isinstance(value, kind) or isinstance(value, bool):
                raise UsageError(f"{where}: {key} must hold {_words(kind)} each, got {value!r}")
    for seed in spec.seeds:
        SEED.parse(f"{where}: seeds", seed)
    for bits in spec.bits:
        if not 4 <= bits <= 8:
            raise UsageError(f"{where}: bits are 4 to 8, got {bits}")
    for profile in spec.profiles:
        if profile not in PROFILES:
            raise UsageError(f"{where}: unknown profile {profile!r}{near(profile, PROFILES)}")
    if min(spec.bits) < 8 and "cpu" in spec.profiles:
        raise UsageError(f"{where}: fewer than 8 bits need the profile integer; make a sweep of its own for cpu")
    for what, labels in (("models", [m.label for m in spec.models]), ("methods", [m.label for m in spec.methods])):
        twice = next((label for i, label in enumerate(labels) if label in labels[:i]), None)
        if twice is not None:
            raise UsageError(f"{where}: two {what} are called {twice!r}; give one a label")
