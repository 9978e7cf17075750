"""QuantPlan: what a method decided for every tensor, as data, in JSON that keeps float32 scales exactly.

``Choice`` is the wish of a method, ``TensorQuant`` the result that the file will hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from qhyvit.errors import InputError, PlanError

SCHEMA_VERSION = 1


class Scheme(StrEnum):
    """Whether the zero point is free or 0."""

    ASYMMETRIC = "asymmetric"
    SYMMETRIC = "symmetric"


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

    Args:
        scale: one value, or one a channel of ``axis``; float32 values held as Python floats.
        zero_point: integers of the same length, inside the grid of ``bits``.
        axis: channel axis in the file's shape; None for one scale.
        bits: 4 to 8 in an int8 tensor, 16 in an int16 one.
        choice: the wish it came from.
        overflow: how far, in codes, the range's own zero point lay outside the grid (0 = inside).
        resolution_loss: how much coarser the grid is because the range was extended to hold zero (1 = not).
        score: the method's score of the choice (smaller is better), None where it does not score.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None
    bits: int = 8
    choice: Choice = field(default_factory=Choice)
    overflow: int = 0
    resolution_loss: float = 1.0
    score: float | None = None

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.zero_point) or (self.axis is None and len(self.scale) != 1):
            raise PlanError(f"{len(self.scale)} scales and {len(self.zero_point)} zero points for axis {self.axis}")
        if not all(s > 0 for s in self.scale):
            raise PlanError(f"scales must be positive, got {min(self.scale)}")
        half = 1 << (self.bits - 1)
        if not all(-half <= z < half for z in self.zero_point):
            raise PlanError(f"zero point {self.zero_point} is outside {self.bits} bits")


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
    model_sha256: str = ""
    images_sha256: str = ""
    image_count: int = 0
    folds: tuple[FoldNote, ...] = ()
    bridge: Mapping[str, str] = field(default_factory=dict)  # bridge tensor -> what clamping cost, in words
    seconds: float = 0.0
    image_hashes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line a tensor; repr of a float64 that holds a float32 value reads back exactly."""
        head = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("tensors", "folds")}
        head = {"schema_version": SCHEMA_VERSION, **head, "folds": [asdict(f) for f in self.folds]}
        lines = [f"{json.dumps(k)}: {json.dumps(v, default=dict)}" for k, v in head.items()]
        rows = [f"{json.dumps(name)}: {json.dumps(asdict(quant))}" for name, quant in self.tensors.items()]
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
                raise InputError(f"plan: schema_version is not {SCHEMA_VERSION}; calibrate again")
            raw["tensors"] = {name: _tensor_quant(value) for name, value in raw["tensors"].items()}
            raw["folds"] = tuple(FoldNote(**f) for f in raw["folds"])
            raw["image_hashes"] = tuple(raw["image_hashes"])
            return QuantPlan(**raw)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"plan: not a quantization plan: {error}; calibrate again") from error


def _tensor_quant(raw: dict[str, Any]) -> TensorQuant:
    wish = dict(raw.pop("choice"))
    choice = Choice(Granularity(wish.pop("granularity")), Scheme(wish.pop("scheme")), **wish)
    return TensorQuant(tuple(raw.pop("scale")), tuple(raw.pop("zero_point")), choice=choice, **raw)


def load(path: Path) -> QuantPlan:
    """Read a plan file.

    Raises:
        InputError: missing or not a plan.
    """
    try:
        return QuantPlan.from_json(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read plan {path}: {error.strerror}") from error
