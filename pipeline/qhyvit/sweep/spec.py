"""What a sweep is made of: a TOML file, read into types, every mistake told in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from qhyvit.config import (
    RENAMED_TARGETS,
    BuildConfig,
    DataConfig,
    MethodConfig,
    ModelConfig,
    TargetConfig,
    board_at,
    read_toml,
    relative,
)
from qhyvit.errors import UsageError, near
from qhyvit.files import is_model_file
from qhyvit.options import Option, Settings, options_of, setting


def _with_bounds_of(settings: type[Settings], name: str, default: Any) -> Any:
    """A field for several values of one of ``settings``'s fields."""
    about: Option = options_of(settings)[name]
    kept = ("low", "high", "choices", "read", "form")
    bounds = {f.name: getattr(about, f.name) for f in fields(about) if f.name in kept}
    return setting(default, about.help, **bounds)


@dataclass(frozen=True)
class ModelSpec(ModelConfig):
    """A model as ``qhyvit export`` takes it; ``label`` names it in the results."""

    label: str = setting("", "names it in the results")
    label_names: Path | None = setting(None, "text file with the names of its values, by which columns of labels go")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "label", self.label or self.name.rpartition(":")[2])
        _check_model(self)

    @property
    def plain(self) -> ModelConfig:
        """Without the label."""
        return ModelConfig(**{f.name: getattr(self, f.name) for f in fields(ModelConfig)})


@dataclass(frozen=True)
class MethodSpec(Settings):
    """A method with options that differ from its defaults; ``label`` names the pair in the results."""

    name: str = setting(MISSING, "as `qhyvit methods` has it")
    options: Mapping[str, Any] = setting({}, "of the method")
    label: str = setting("", "names it in the results")

    def __post_init__(self) -> None:
        super().__post_init__()
        MethodConfig(self.name, self.options)
        changed = ", ".join(f"{k}={v}" for k, v in self.options.items())
        object.__setattr__(self, "label", self.label or (f"{self.name} ({changed})" if changed else self.name))


@dataclass(frozen=True)
class EvaluationSpec(Settings):
    """Labelled images; None of ``count``: all of them."""

    images: Path = setting(MISSING, "with labels.csv")
    labels: Path | None = setting(None, "another labels.csv")
    count: int | None = setting(None, "of the images, the same ones for all", low=1)
    resize_mode: str | None = _with_bounds_of(DataConfig, "resize_mode", None)


@dataclass(frozen=True)
class Spec(Settings):
    """Every model by every method, number of bits, seed and target."""

    RENAMED: ClassVar = {
        "profiles": "integer is the default; float as well is integer = [true, false]",
        "latency_profile": RENAMED_TARGETS["latency_profile"],
    }
    models: tuple[ModelSpec, ...] = setting(MISSING, "what is exported")
    methods: tuple[MethodSpec, ...] = setting(MISSING, "how scales are chosen")
    calibration: DataConfig = setting(MISSING, "images to calibrate on")
    evaluation: EvaluationSpec = setting(MISSING, "images to measure on")
    bits: tuple[int | str, ...] = _with_bounds_of(MethodConfig, "bits", (8,))
    seeds: tuple[int, ...] = _with_bounds_of(MethodConfig, "seed", (0,))
    targets: tuple[str, ...] = setting(("litert",), "what the files run on")
    integer: tuple[bool, ...] = setting((True,), "no float; false: float where that is faster")

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, labels in (("models", [m.label for m in self.models]), ("methods", [m.label for m in self.methods])):
            twice = next((label for i, label in enumerate(labels) if label in labels[:i]), None)
            if twice is not None:
                raise UsageError(f"two {what} are called {twice!r}; give one a label")
        for model in self.models:
            tuple(self.builds(model))

    def builds(self, model: ModelSpec) -> Iterator[tuple[MethodSpec, BuildConfig]]:
        """The builds of a model, in the order of the file.

        Raises:
            UsageError: a combination that cannot be built.
        """
        for way, bits, seed, name, integer in product(
            self.methods, self.bits, self.seeds, self.targets, self.integer
        ):
            method = MethodConfig(way.name, way.options, seed, bits)
            yield way, BuildConfig(model.plain, self.calibration, method, TargetConfig(name, integer))


def read_spec(path: Path) -> Spec:
    """Read a spec; paths in it are relative to it.

    Raises:
        InputError, UsageError: unreadable, no TOML, an unknown key, name or value, an empty list.
    """
    base = path.resolve().parent
    found = relative(Spec, read_toml(path), base)
    if isinstance(found.get("targets"), list):
        found["targets"] = [board_at(name, base) for name in found["targets"]]
    return Spec.parse(found, path.name)


def _check_model(model: ModelConfig) -> None:
    from qhyvit.models import all_families
    from qhyvit.models.shared.own import is_own
    from qhyvit.models.shared.pretrained import is_published

    known = [v for f in all_families().values() for v in f.variants]
    if is_own(model.name) or is_model_file(model.name):
        if model.random_weights or model.pretrained:
            raise UsageError("random_weights and pretrained are for names; a module or file keeps its own weights")
        return
    if model.name not in known and not model.name.startswith("timm/") and not is_published(model.name):
        raise UsageError(f"unknown model {model.name!r}{near(model.name, known)}")
    ways = sum(map(bool, (model.weights, model.pretrained, model.random_weights)))
    if ways > 1 or (not ways and not is_published(model.name)):
        raise UsageError(f"{model.name} needs one of weights, pretrained = true or, for a trial, random_weights = true")
