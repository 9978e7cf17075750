"""Outputs of which nothing is known: each counts by its error over its own variance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qhyvit.tasks.shared.divergence import SMALLEST_POWER, variance
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.task import Alike, Distance, Task

if TYPE_CHECKING:
    import torch


def _unfit(layout: Layout) -> str:
    return ""


def _distance(layout: Layout, reference: torch.Tensor) -> Distance:
    """Mean squared error of each output over its variance on the calibration images; their mean, by weights."""
    weights = layout.weights or (1.0,) * len(layout.shapes)
    spreads = [variance(part, tuple(range(part.dim()))) for part in layout.parts(reference)]

    def distance(target: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        total = target.new_zeros(len(target))
        for a, b, spread, weight in zip(layout.parts(target), layout.parts(outputs), spreads, weights, strict=True):
            total = total + weight * ((b - a) ** 2).flatten(1).mean(dim=1) / spread
        return total / sum(weights)

    return distance


def _alike(reference: np.ndarray, outputs: np.ndarray, layout: Layout) -> Alike:
    """The share of each output's variance that is kept; the lowest of all outputs."""
    kept = {}
    for name, a, b in zip(layout.names, layout.parts(reference), layout.parts(outputs), strict=True):
        kept[name] = 1 - float(((b - a) ** 2).mean() / max(float(a.var()), SMALLEST_POWER))
    worst = min(kept, key=kept.__getitem__)
    text = ", ".join(f"{name} {share:.2%}" for name, share in kept.items()) + " of the variance kept"
    each = tuple(100 * share for share in kept.values())
    return Alike(kept[worst], text, kept, reading=100 * kept[worst], each=each)


TASK = Task(
    "raw", "any outputs, each by its error over its variance", _unfit, _distance, _alike,
    kept="of each output's variance", limit=0.9, far=0.05, thorough=True,
    reading="variance kept of float %", distance_name="error",
)  # fmt: skip
