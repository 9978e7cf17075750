"""QuantPlan: what a method decided for every tensor, as data, in JSON that keeps float32 scales exactly.

``Choice`` is the wish of a method, ``TensorQuant`` the result that the file will hold.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, get_type_hints

import numpy as np

from qhyvit.errors import InputError, PlanError
from qhyvit_device.matching import matches

SCHEMA_VERSION = 5
PROFILES = ("integer", "cpu")  # no float at all; float where its kernels are faster
LISTS = ("image_hashes", "wide", "floats", "gates", "refused")  # of names


class Scheme(StrEnum):
    """Whether the zero point is free or 0."""

    ASYMMETRIC = "asymmetric"
    SYMMETRIC = "symmetric"


class Codes(StrEnum):
    """What a code stands for: steps of a scale; or, for values >= 0, halves or 1 / sqrt(2) of it; or two scales."""

    UNIFORM = "uniform"
    LOG2 = "log2"
    LOG_SQRT2 = "log_sqrt2"
    TWIN = "twin"


class Granularity(StrEnum):
    """One scale for the tensor (LAYER) or one for each channel (CHANNEL)."""

    LAYER = "layer"
    CHANNEL = "channel"


@dataclass(frozen=True)
class Choice:
    """The wish: how a tensor is to be quantized, before its range is known."""

    granularity: Granularity = Granularity.LAYER
    scheme: Scheme = Scheme.ASYMMETRIC
    observer: str = "minmax"


@dataclass(frozen=True)
class TensorQuant:
    """The result for one tensor.

    Codes other than UNIFORM are the rivals': TFLite cannot express them, they exist in simulation only.

    Args:
        scale: one value, or one a channel of ``axis``; rounded to float32, as a file holds them.
        zero_point: integers of the same length, inside the grid of ``bits``.
        axis: channel axis in the file's shape; None for one scale.
        bits: 4 to 8 in an int8 tensor, 16 in an int16 one.
        low: the lowest code; None for -2^(bits - 1).
        codes: what a code stands for; ``second``: the scale of the upper half of TWIN codes.
        choice: the wish it came from.
        overflow: how far, in codes, the range's own zero point lay outside the grid (0 = inside).
        resolution_loss: how much coarser the grid is because the range was extended to hold zero (1 = not).
        score: the method's score of the choice (smaller is better), None where it does not score.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None
    bits: int = 8
    low: int | None = None
    codes: Codes = Codes.UNIFORM
    second: float | None = None
    choice: Choice = field(default_factory=Choice)
    overflow: int = 0
    resolution_loss: float = 1.0
    score: float | None = None

    def __post_init__(self) -> None:
        # whoever chose it: of another number the file would not be what the plan says
        object.__setattr__(self, "scale", tuple(np.asarray(self.scale, np.float32).tolist()))
        if len(self.scale) != len(self.zero_point) or (self.axis is None and len(self.scale) != 1):
            raise PlanError(f"{len(self.scale)} scales and {len(self.zero_point)} zero points for axis {self.axis}")
        if not all(s > 0 for s in self.scale):
            raise PlanError(f"scales must be positive, got {min(self.scale)}")
        low, high = self.limits
        if not all(low <= z <= high for z in self.zero_point):
            raise PlanError(f"zero point {self.zero_point} is outside {self.bits} bits, codes {low} to {high}")

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest code."""
        low = -(1 << (self.bits - 1)) if self.low is None else self.low
        return low, min(low + (1 << self.bits) - 1, (1 << (max(self.bits, 8) - 1)) - 1)


@dataclass(frozen=True)
class FoldNote:
    """One fold that was applied to make a channel-wise choice expressible."""

    fold: str
    place: str
    gain: float  # the objective without the fold minus with it


@dataclass(frozen=True)
class QuantPlan:
    """Everything that ``convert`` needs beside the graph. ``tensors`` is keyed by tensor name."""

    tensors: Mapping[str, TensorQuant]
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    profile: str = "integer"
    target: str = "litert"  # what it is for (qhyvit.targets)
    model_sha256: str = ""
    images_sha256: str = ""
    image_count: int = 0
    folds: tuple[FoldNote, ...] = ()
    bridge: Mapping[str, str] = field(default_factory=dict)  # bridge tensor -> what clamping cost, in words
    seconds: float = 0.0
    image_hashes: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()  # tensors that int16 kernels compute, in int8 again behind them
    floats: tuple[str, ...] = ()  # tensors that float kernels compute, or int16 ones where ``int16`` has scales
    int16: Mapping[str, float] = field(default_factory=dict)  # of all that int16 islands compute, by name
    latency: str = ""  # the latency profile that decided about time
    task: str = "classify"  # whose distance was lowered (qhyvit.tasks)
    gates: tuple[str, ...] = ()  # nodes that stand for another function (``Graph.gates``)
    refused: tuple[str, ...] = ()  # edits that would have changed what the network computes, and were left out
    resize_mode: str | None = None  # the one that was asked for; None: as the model or its images say

    def to_json(self) -> str:
        """One line a tensor; repr of a float64 that holds a float32 value reads back exactly."""
        head = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("tensors", "folds")}
        head = {"schema_version": SCHEMA_VERSION, **head, "folds": [asdict(f) for f in self.folds]}
        lines = [f"{json.dumps(k)}: {json.dumps(v, default=dict)}" for k, v in head.items()]
        rows = [f"{json.dumps(name)}: {json.dumps(_plain(quant))}" for name, quant in self.tensors.items()]
        lines.append('"tensors": {\n' + ",\n".join(rows) + "\n}")
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @staticmethod
    def from_json(text: str) -> QuantPlan:
        """Read back what :meth:`to_json` wrote.

        Raises:
            InputError: not JSON, another schema version, unknown or missing keys.
        """
        try:
            raw = json.loads(text)
            if raw.pop("schema_version", None) != SCHEMA_VERSION:
                raise InputError(f"plan: schema_version is not {SCHEMA_VERSION}; calibrate again with --force")
            raw["tensors"] = {name: _tensor_quant(value) for name, value in raw["tensors"].items()}
            raw["folds"] = tuple(FoldNote(**f) for f in raw["folds"])
            raw.update({name: tuple(raw[name]) for name in LISTS if isinstance(raw[name], list)})
            plan = QuantPlan(**raw)
            wrong = [name for name, kind in get_type_hints(QuantPlan).items() if not _fits(getattr(plan, name), kind)]
            if plan.profile not in PROFILES:
                raise ValueError(f"there is no profile {plan.profile!r}")
            if wrong:
                raise TypeError(f"{wrong[0]} has values of another type")
            return plan
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError, PlanError) as error:
            raise InputError(f"plan: not a quantization plan: {error}; calibrate again with --force") from error


def _fits(value: Any, kind: Any) -> bool:
    return matches(value, kind, sys.float_info.max)


def _tensor_quant(raw: dict[str, Any]) -> TensorQuant:
    wish = dict(raw.pop("choice"))
    choice = Choice(Granularity(wish.pop("granularity")), Scheme(wish.pop("scheme")), **wish)
    codes = Codes(raw.pop("codes"))
    return TensorQuant(tuple(raw.pop("scale")), tuple(raw.pop("zero_point")), choice=choice, codes=codes, **raw)


def _plain(quant: TensorQuant) -> dict[str, Any]:
    """Its fields; ``asdict`` would copy every scale of every channel by itself, which takes seconds a build."""
    return {**vars(quant), "choice": dict(vars(quant.choice))}


def quants_to_json(quants: Mapping[str, TensorQuant]) -> dict[str, Any]:
    """Plain data by tensor name."""
    return {name: _plain(quant) for name, quant in quants.items()}


def quants_from_json(raw: Mapping[str, Any]) -> dict[str, TensorQuant]:
    """What :func:`quants_to_json` gave."""
    return {name: _tensor_quant(dict(value)) for name, value in raw.items()}
