"""What a card says, as data, and reading it back from JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from qhyvit import files
from qhyvit.errors import InputError
from qhyvit_device.matching import matches

SCHEMA_VERSION = 2
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Figure:
    """How right both files are on ``Measured.images`` images; ``low`` and ``high``: Wilson's interval at 95 %.

    The interval is there for shares of images, and None for other figures.
    """

    name: str
    integer: float
    low: float | None
    high: float | None
    floating: float | None
    floating_low: float | None
    floating_high: float | None


@dataclass(frozen=True)
class Measured:
    """An evaluation in the figures of its task; ``agreement``: how much of float the file keeps.

    ``gained`` and ``lost``: images on which only the integer file, and only the float file, is right.
    ``images_sha256``: of the images, their names and their labels: figures of equal ones compare. ``key``: hash of all
    that the figures follow from, see :func:`key_of`. ``each``: ``agreement`` of every output, or of every value, by
    name, the worst first; empty where there is one alone.
    """

    images: int
    folder: str
    images_sha256: str
    key: str
    resize_mode: str
    figures: tuple[Figure, ...]
    agreement: Figure | None
    gained: int | None
    lost: int | None
    p_value: float | None
    each: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Speed:
    """A bench on one machine, milliseconds and MiB; ``runs`` inferences, of which ``first_ms`` is none."""

    machine: str
    runtime: str
    threads: int
    runs: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    first_ms: float
    load_ms: float
    peak_memory_mib: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """All facts of a card.

    Args:
        input: shape [1, H, W, C] and dtype in words; ``outputs``: by name.
        bundle_sha256: of the manifest, which names the hashes of all other files.
        made: how, by what it is called: command, method, seed, weights, versions, ...
        verified: what the verification of the build found on how many images beside float, in words;
            ``verified_share``: the share of float that it kept there, 0 to 1. "" and None where it is not recorded.
        proven: what shows that the file works on its target, in words, by the target's name.
        ops: by "OP DTYPE"; ``off_delegate``: those that XNNPACK leaves to slower kernels.
        run: shell lines.
    """

    bundle: str
    bundle_sha256: str
    model: str
    task: str
    profile: str
    input: str
    outputs: dict[str, str]
    random_weights: bool
    licence: str
    size_bytes: int
    float_size_bytes: int | None
    ops: dict[str, int]
    off_delegate: dict[str, int]
    float_tensors: int
    oldest_runtime: str
    made: dict[str, Any]
    verified: str
    verified_share: float | None
    proven: dict[str, str]
    accuracy: Measured | None
    speed: Speed | None
    run: tuple[str, ...]
    schema_version: int = field(default=SCHEMA_VERSION)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def _of(kind: Any, raw: Any) -> Any:
    """Plain data as a dataclass or another type of a card.

    Raises:
        TypeError: they are none.
    """
    of = get_args(kind)
    if get_origin(kind) is UnionType:  # only "or None"
        return None if raw is None else _of(of[0], raw)
    if get_origin(kind) is tuple and isinstance(raw, list):
        return tuple(_of(of[0], value) for value in raw)
    if is_dataclass(kind) and isinstance(raw, dict):
        hints = get_type_hints(kind)
        return kind(**{name: _of(hints[name], value) for name, value in raw.items()})  # type: ignore[operator]
    if not matches(raw, kind, math.inf):
        raise TypeError(f"{type(raw).__name__} for {kind}")
    return raw


def read(path: Path) -> Card:
    """A card's JSON.

    Raises:
        InputError: unreadable, damaged, or of another schema.
    """
    try:
        raw = json.loads(files.read_bytes(path, "card"))
        version = raw["schema_version"]
        found: Card | None = _of(Card, raw) if version == SCHEMA_VERSION else None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is no card; make it again") from error
    if found is None:
        raise InputError(f"{path} is a card of schema {version}; make it again")
    return found
