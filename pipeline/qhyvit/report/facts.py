"""What a report knows, as data: plain values only, rounded once, so that page and JSON show the same figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

DIGITS = 5  # significant, of every measured figure


def rounded(value: float) -> float:
    """``value`` with :data:`DIGITS` significant digits; sums of the same values in another order agree in these."""
    if value == 0 or not math.isfinite(value):
        return 0.0 if value == 0 else value
    return float(f"{value:.{DIGITS}g}")


@dataclass(frozen=True)
class ValueCounts:
    """Counts of values in equal bins over [low, high]; ``grid``: the lowest and highest value that has a code."""

    low: float
    high: float
    counts: tuple[int, ...]
    grid: tuple[float, float]


@dataclass(frozen=True)
class TensorFacts:
    """One tensor that the plan rounds.

    Args:
        name: in the graph; ``kind``: activation, weight or constant; ``op``: what writes (of weights: reads) it.
        block: label of the block that it belongs to.
        shape: in the file. ``copies``: tensors that hold the same codes (RESHAPE, TRANSPOSE, ...).
        scheme, granularity, observer, bits, scale (lowest and highest), zero_point: as the plan says.
        overflow: codes that the range's own zero point lay outside the grid; ``resolution_loss``: how much wider
            the steps became by extending the range to zero.
        low, high: smallest and largest value on the samples (weights: in units of their channel's step).
        clipped: share of the values that lie beyond the ends of the grid.
        sqnr_db: signal to noise of rounding this tensor alone; None where rounding changes nothing.
        file_sqnr_db: of this tensor in the integer file against float, with all errors before it (verification).
        kl: mean KL(float || only this tensor rounded) on the samples.
        bridge: what the plan says about it as a bridge tensor, "" for others.
    """

    name: str
    kind: str
    op: str
    block: str
    shape: tuple[int, ...]
    copies: tuple[str, ...]
    scheme: str
    granularity: str
    observer: str
    bits: int
    scale: tuple[float, float]
    zero_point: int
    overflow: int
    resolution_loss: float
    low: float
    high: float
    clipped: float
    sqnr_db: float | None
    file_sqnr_db: float | None
    kl: float
    histogram: ValueCounts
    bridge: str = ""


@dataclass(frozen=True)
class BlockFacts:
    """One link of the network's chain.

    Args:
        label: module path. ``ops``: how many, by type. ``bridge``: entry and exit tensors inside.
        kl: mean KL with this block alone quantized; ``kl_up_to``: with everything from the input to its end.
    """

    label: str
    ops: dict[str, int]
    bridge: tuple[str, ...]
    kl: float
    kl_up_to: float


@dataclass(frozen=True)
class Change:
    """Something that can be changed: what it would regain of the KL on the samples, why, and the command.

    ``kl_after`` None: not measurable without calibrating again.
    """

    title: str
    reason: str
    command: str
    kl_after: float | None


@dataclass(frozen=True)
class Cost:
    """What quantization costs on the samples: mean distance of everything quantized, and what holds how much of it.

    The distance is the task's (of classes it is a KL); ``alike``: what is kept of float, in words.
    """

    images: int
    kl: float
    alike: str
    blocks: tuple[BlockFacts, ...]
    tensors: tuple[TensorFacts, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Difference:
    """One image on which the two files say different things.

    Args:
        name: of the image; ``truth``: what is right, None where that is not known or no word.
        floating, integer: what the files say, in words.
        apart: how far they are from each other, by the task's own measure.
        better: True where only the integer file is right, False where only float is, None elsewhere.
        pictures: the image, and of maps float's, the integer file's and where they differ: JPEGs in base64.
    """

    name: str
    truth: str | None
    floating: str
    integer: str
    apart: float
    better: bool | None
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class Confusion:
    """How often images of ``truth`` were taken for ``taken_for``, in float and in the integer file."""

    truth: str
    taken_for: str
    float_count: int
    integer_count: int


@dataclass(frozen=True)
class Examined:
    """Float and integer file on the same images.

    Args:
        source: what images these are.
        title: of ``reading``, the figure of what is kept of float; ``text``: the same in words.
        distance: mean distance of the files' own outputs, by the task.
        evaluation: as ``qhyvit evaluate`` gives it; ``figures``: (title, float, integer) of what labels say.
        differing: images on which they say different things.
    """

    source: str
    images: int
    title: str
    reading: float
    text: str
    distance: float
    evaluation: dict[str, Any]
    figures: tuple[tuple[str, str, str], ...]
    differing: int
    differences: tuple[Difference, ...]
    confusions: tuple[Confusion, ...]


@dataclass(frozen=True)
class LatencyRow:
    """One model on one board."""

    board: str
    threads: int
    model: str
    p50_ms: float
    p95_ms: float
    ratio: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Missing:
    """Something the report could not show, why, and how to get it."""

    what: str
    why: str
    command: str


@dataclass(frozen=True)
class PageFacts:
    """Everything on the page.

    ``build``: who made it and how, in words; ``checks``: of verification, and ``informs``: what it says beside them;
    ``distance``: what the task's is called.
    """

    model: str
    bundle: str
    method: str
    profile: str
    build: dict[str, str]
    size_bytes: int
    float_size_bytes: int | None
    ops: dict[str, int]
    partitions: int
    not_delegated: dict[str, int]
    oldest_runtime: str
    checks: tuple[dict[str, Any], ...]
    informs: tuple[dict[str, Any], ...]
    folds: tuple[dict[str, Any], ...]
    task: str
    distance: str
    cost: Cost | None
    examined: Examined | None
    latency: tuple[LatencyRow, ...]
    missing: tuple[Missing, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def ranked(tensors: Sequence[TensorFacts]) -> list[TensorFacts]:
    """Most costly first."""
    return sorted(tensors, key=lambda t: (-t.kl, t.name))
