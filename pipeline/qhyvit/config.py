"""One build's settings as frozen dataclasses: from a TOML file, from flags, from Python, and back."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from qhyvit import files
from qhyvit.errors import UsageError, near
from qhyvit.options import Option, Settings, numbers, options_of, setting
from qhyvit.targets import Target, target
from qhyvit.tasks import task
from qhyvit_device.preprocess import MODES

RENAMED_TARGETS = {
    "profile": "integer is the default, cpu is --no-integer (integer = false)",
    "int16": "for runtimes of 2.14 use --target litert-2.14",
    "latency_profile": "use --target, with the JSON file, or a board's name such as litert-cortex-a72",
}
CONFIG = "config.json"  # in a work directory: the settings of the stages that ran

if TYPE_CHECKING:
    from qhyvit.methods.shared.method import Method
    from qhyvit.methods.shared.problem import Options


def sides(given: Any) -> tuple[int, int] | None:
    """Height and width of S, (H, W), "S" or "HxW"; None: it is none of these, or out of bounds."""
    found = numbers(given.replace("x", ",")) if isinstance(given, str) else numbers(given)
    if found is None or len(found) > 2 or not all(v == int(v) and 32 <= v <= 4096 for v in found):
        return None
    return int(found[0]), int(found[-1])


W4A8 = "w4a8"  # weights of four bits where a kernel takes them, activations of eight
UNITS = {"MB": 10**6, "kB": 10**3, "B": 1, "": 1}


def bits_of(given: Any) -> int | str | None:
    """4 to 8, or ``w4a8``; None: it is none of these."""
    if isinstance(given, str) and given.strip().lower() == W4A8:
        return W4A8
    found = numbers(given) if isinstance(given, int | float | str) and not isinstance(given, bool) else None
    return int(found[0]) if found is not None and len(found) == 1 and found[0] in (4, 5, 6, 7, 8) else None


def bytes_of(given: Any) -> int | None:
    """Bytes of a number of them, or of a text such as ``2.1MB`` (10^6) or ``900kB``; None: it is none of these."""
    unit = next(u for u in UNITS if given.endswith(u)) if isinstance(given, str) else ""
    found = numbers(given.removesuffix(unit) if isinstance(given, str) else given)
    size = found[0] * UNITS[unit] if found is not None and len(found) == 1 else 0.0
    return round(size) if 1 <= size <= 1e10 else None


@dataclass(frozen=True)
class ModelConfig(Settings):
    """What is exported. ``module``: a ``torch.nn.Module`` in the place of the name, from Python alone."""

    name: str = setting(
        MISSING, "Name from `qhyvit models`, timm/NAME, hf-hub:OWNER/NAME, local-dir:FOLDER, FILE.py:FUNCTION, or a "
        ".tflite, .onnx or .pt2.",
    )  # fmt: skip
    weights: Path | None = setting(
        None, "A .safetensors file, the index of several, or a torch state dict; a model of FILE.py brings its own."
    )
    random_weights: bool = setting(False, "Draw random weights, to try a named model.")
    classes: int | None = setting(None, "Number of classes of fine-tuned weights.", low=1, high=10**6)
    input_size: tuple[int, int] | None = setting(
        None, "Input size in pixels, S or HxW (height first).", read=sides,
        form="a whole number from 32 to 4096 pixels, or two as HxW",
    )  # fmt: skip
    mean: tuple[float, ...] | None = setting(
        None, "Mean to subtract from pixels: one number, or one for each channel with commas, of 0..1 or of 0..255.",
        read=numbers, form="numbers with commas",
    )  # fmt: skip
    std: tuple[float, ...] | None = setting(
        None, "Deviation to divide pixels by then, in the mean's unit.", read=numbers, form="numbers with commas"
    )
    channel_order: str | None = setting(
        None, "Order of colours that the model takes: RGB or BGR; the file always takes RGB.", choices=("RGB", "BGR")
    )
    task: str | None = setting(
        None, "What the outputs mean (`qhyvit tasks` lists the tasks); by default their shapes decide.",
    )  # fmt: skip
    pretrained: bool = setting(False, "Take the weights that timm publishes for a name; fetched once, then cached.")
    module: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task is not None:
            task(self.task)

    @property
    def source(self) -> Any:
        """The module, else the name."""
        return self.name if self.module is None else self.module

    def to_json(self, path: Callable[[Path], str] = str) -> dict[str, Any]:
        """Plain data by name; ``path`` says how a path is written."""
        return {**super().to_json(path), "name": located(self.name, path)}


@dataclass(frozen=True)
class DataConfig(Settings):
    """What is calibrated on, and verified on where images are left."""

    images: Path = setting(MISSING, "Folder of images like those that the model will see; no labels needed.")
    count: int = setting(128, "Number of images to calibrate on.", low=1, high=10**6)
    resize_mode: str | None = setting(
        None, "How images are made to fit, crop or squash; default: as preprocess.json or the bundle says, else crop.",
        choices=MODES,
    )  # fmt: skip


@dataclass(frozen=True)
class MethodConfig(Settings):
    """How scales are chosen. ``options`` are complete once this is made."""

    name: str = setting("qhyvit", "Calibration method; `qhyvit methods` lists them.")
    options: Mapping[str, Any] = setting({}, "Option of the method, as NAME=VALUE; may be given again.", flag="set")
    seed: int = setting(0, "Seed of everything that is drawn at random.", low=0, high=2**32 - 1)
    bits: int | str = setting(
        8, "Bits of weights and activations; fewer than 8 is for studies. w4a8: weights have 4, files half the size.",
        read=bits_of, form="a whole number from 4 to 8, or w4a8",
    )  # fmt: skip
    size: int | None = setting(
        None, "Largest file with --bits w4a8, such as 2.1MB; layers that gain most by 8 bits keep 8.",
        read=bytes_of, form="a size such as 2.1MB or 900kB",
    )  # fmt: skip
    output_weights: Mapping[str, Any] = setting(
        {}, "How much an output counts in the task raw: NAME=WEIGHT, default 1; may be given again.",
        flag="output-weight",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "options", self.parsed[1].to_json())
        weight = Option(MISSING, "", low=0.0, high=1e6, kind=float)
        parsed = {name: weight.parse(f"output_weights {name}", w) for name, w in self.output_weights.items()}
        object.__setattr__(self, "output_weights", parsed)

    @property
    def has_int4(self) -> bool:
        """Whether weights may have four bits."""
        return self.bits == W4A8

    @property
    def activation_bits(self) -> int:
        """Bits of activations, and of those weights that have no four."""
        return 8 if isinstance(self.bits, str) else self.bits

    @property
    def parsed(self) -> tuple[Method, Options]:
        """The method, and its options in their types."""
        from qhyvit.methods import method

        found = method(self.name)
        return found, found.parse(self.options)


@dataclass(frozen=True)
class TargetConfig(Settings):
    """What the file runs on."""

    RENAMED: ClassVar = RENAMED_TARGETS
    name: str = setting(
        "litert", "Runtime or board that the file is for (`qhyvit targets` lists them); or a JSON file of a board's "
        "times, from `latency-profile` or `bench`.",
    )  # fmt: skip
    integer: bool = setting(True, "No float tensor; --no-integer: float where that is faster, if the target can.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.found  # noqa: B018 - raises

    @cached_property
    def found(self) -> Target:
        """The target, without float where none is wanted."""
        return target(self.name, integer=self.integer)


@dataclass(frozen=True)
class OutputConfig(Settings):
    """What is written, and what has to hold of it."""

    out: Path | None = setting(None, "Bundle folder to make.")
    work: Path | None = setting(None, "Work directory, from which a second run goes on; default OUT.work.")
    labels: Path | None = setting(None, "Text file with the names of the classes, one on each line.")
    min_agreement: float | None = setting(
        None, "Share of what the float file says that the file must say too; default: the task's own, 0.9 or 0.95.",
        low=0, high=1,
    )  # fmt: skip


@dataclass(frozen=True)
class BuildConfig(Settings):
    """One build."""

    model: ModelConfig = setting(MISSING, "what is exported")
    data: DataConfig = setting(MISSING, "what is calibrated on")
    method: MethodConfig = setting(MethodConfig, "how scales are chosen")
    target: TargetConfig = setting(TargetConfig, "what the file runs on")
    output: OutputConfig = setting(OutputConfig, "what is written")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bits(self.method, self.target)

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """The build that a file describes; paths in it are relative to it.

        Raises:
            InputError, UsageError: unreadable, no TOML, an unknown key, something missing, a value that is not allowed.
        """
        return cls.from_cli({}, path)

    @classmethod
    def from_cli(cls, flags: Mapping[str, Any], file: Path | None = None) -> Self:
        """The build of these :func:`flags`, each in the place of what ``file`` says.

        Options of a method in the file count for that method only; flags' are put over them. None: not given.

        Raises:
            InputError, UsageError: see :meth:`from_toml`; no such flag.
        """
        whose, given = "the build", {k: v for k, v in flags.items() if v is not None}
        raw: dict[str, Any] = {part: {} for part in options_of(cls)}
        if file is not None:
            whose = file.name
            raw |= relative(cls, read_toml(file), file.parent)
        for part in options_of(cls):
            if not isinstance(raw[part], dict):
                raise UsageError(f"{whose}: {part} must be a table, got {raw[part]!r}")
        method = raw["method"].get("name", MethodConfig.name)
        if given.get("method", method) != method:
            raw["method"].pop("options", None)
        for keyword, value in given.items():
            if keyword in RENAMED_TARGETS:
                raise UsageError(f"{keyword} is no setting any more: {RENAMED_TARGETS[keyword]}")
            if keyword not in keywords():
                raise UsageError(f"a build has no setting {keyword!r}{near(keyword, keywords())}")
            part, name, _ = keywords()[keyword]
            kept = raw[part].get(name)
            raw[part][name] = {**kept, **value} if isinstance(kept, dict) and isinstance(value, Mapping) else value
        for keyword, (part, name, option) in keywords().items():
            if option.default is MISSING and name not in raw[part]:
                raise UsageError(f"{whose} needs {keyword}: on the command line, or as {name} of [{part}]")
        return cls.parse(raw, whose)

    def to_toml(self) -> str:
        """What :meth:`from_toml` reads back; None is left out."""
        lines = []
        for part, values in self.to_json().items():
            lines += [f"[{part}]", *(f"{k} = {_toml(v)}" for k, v in values.items() if v is not None), ""]
        return "\n".join(lines)


def check_bits(method: MethodConfig, target: TargetConfig) -> None:
    """Refuse bits that the target or the method does not have.

    Raises:
        UsageError: it does not; or a size without bits that can keep to one.
    """
    if method.activation_bits < 8 and not target.integer:
        raise UsageError(f"--bits {method.bits} needs --integer: float islands have no smaller grid")
    if method.has_int4 and not method.parsed[0].has_int4:
        raise UsageError(f"--bits {W4A8} needs --method qhyvit: {method.name} has no weights of four bits")
    if method.has_int4 and not target.found.int4:
        raise UsageError(f"--bits {W4A8} cannot run on the target {target.name}: it has no int4 kernel")
    if method.size is not None and not method.has_int4:
        raise UsageError(f"--size needs --bits {W4A8}: files of int8 weights have the size that they have")


@cache
def keywords(*parts: str) -> Mapping[str, tuple[str, str, Option]]:
    """(part, field, option) of each setting of a build, or of some parts, by the keyword that Python has for it.

    The ``name`` of a part is called as the part is.
    """
    return {
        part if name == "name" else name: (part, name, about) for part, whole in options_of(BuildConfig).items()
        if not parts or part in parts for name, about in options_of(whole.kind).items()
    }  # fmt: skip


def read_toml(path: Path) -> dict[str, Any]:
    """The table that a file holds.

    Raises:
        InputError, UsageError: unreadable, or no TOML.
    """
    try:
        return tomllib.loads(files.read_bytes(path, "settings", pipe=True).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error


def relative(kind: type[Settings], given: Any, base: Path) -> Any:
    """A table of a file, or a text that is its ``name``, with its paths, a model's too, seen from ``base``."""
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, dict):
        return given
    known = options_of(kind)
    found = {name: _relative(known[name], value, base) if name in known else value for name, value in given.items()}
    if issubclass(kind, ModelConfig) and isinstance(found.get("name"), str):
        found["name"] = located(found["name"], lambda place: str(base / place))
    if issubclass(kind, TargetConfig) and "name" in found:
        found["name"] = board_at(found["name"], base)
    return found


def board_at(name: Any, base: Path) -> Any:
    """A target's name; of a JSON file its path as seen from ``base``."""
    return str(base / name) if isinstance(name, str) and name.endswith(".json") else name


def _relative(option: Option, value: Any, base: Path) -> Any:
    if issubclass(option.kind, Settings):
        several = option.many and isinstance(value, list)
        return [relative(option.kind, v, base) for v in value] if several else relative(option.kind, value, base)
    return base / value if option.kind is Path and isinstance(value, str) else value


def located(name: str, path: Callable[[Path], str]) -> str:
    """A model's name; of a file, a folder, and of FILE.py:FUNCTION, the path as ``path`` writes it."""
    if files.is_model_file(name):
        return path(Path(name))
    if name.startswith(files.LOCAL_DIR) and name != files.LOCAL_DIR:
        return files.LOCAL_DIR + path(Path(name.removeprefix(files.LOCAL_DIR)))
    place, own, function = name.partition(files.OWN)
    return f"{path(Path(place + '.py'))}:{function}" if own else name


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }" if value else "{}"
    # a JSON text, number or truth value is one of TOML's, but for DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
