"""An embedding: only its direction counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.score import Score, Truth
from qhyvit.tasks.shared.task import Alike, Distance, Task, unfit_for_rows

if TYPE_CHECKING:
    import torch

SMALLEST_NORM = 1e-12


def _unfit(layout: Layout) -> str:
    return unfit_for_rows(layout, 2, "values")


def _one_minus_cosine(reference: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """1 - cosine of each image, [B, N] -> [B]: half of the squared distance of the two directions."""
    return ((_direction(reference) - _direction(outputs)) ** 2).sum(dim=1) / 2


def _direction(x: torch.Tensor) -> torch.Tensor:
    """Vectors of length 1, [B, N]; what is nearly 0, as where all outputs round to it, has none, and no gradient."""
    power = (x * x).sum(dim=1, keepdim=True)
    known = power > SMALLEST_NORM**2
    return x * known / power.where(known, power.new_ones(())).sqrt()


def _distance(layout: Layout, reference: torch.Tensor) -> Distance:
    return _one_minus_cosine


def cosines(reference: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Cosine of each image's outputs with the reference's, [N, D] and [N, D] -> [N], float64."""
    a, b = (x.astype(np.float64) for x in (reference, outputs))
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    found: np.ndarray = (a * b).sum(axis=1) / np.maximum(norms, SMALLEST_NORM)
    return found


def _alike(reference: np.ndarray, outputs: np.ndarray, layout: Layout) -> Alike:
    """The mean cosine."""
    found = cosines(reference, outputs)
    mean, low, lowest = float(found.mean()), float(np.percentile(found, 1)), float(found.min())
    text = f"cosine to float {mean:.4f}, 1st percentile {low:.4f}, lowest {lowest:.4f}"
    return Alike(mean, text, {"cosine": mean, "cosine_percentile_1": low, "cosine_lowest": lowest}, reading=mean)


def _apart(reference: np.ndarray, outputs: np.ndarray, layout: Layout) -> np.ndarray:
    return 1 - cosines(reference, outputs)


def nearest(outputs: np.ndarray) -> np.ndarray:
    """The nearest other image of each by the cosine, [N, D] -> [N]."""
    x = outputs.astype(np.float64)
    x = x / np.maximum(np.sqrt((x * x).sum(axis=1, keepdims=True)), SMALLEST_NORM)
    near = x @ x.T
    np.fill_diagonal(near, -np.inf)
    found: np.ndarray = near.argmax(axis=1)
    return found


def _score(outputs: np.ndarray, truth: np.ndarray, layout: Layout) -> Score:
    """The share of images whose nearest neighbour has their class."""
    decided = truth[nearest(outputs)]
    right = decided == truth
    return Score({"neighbour_percent": 100 * float(right.mean())}, right, decided)


TASK = Task(
    "embed", "an embedding, whose direction counts", _unfit, _distance, _alike,
    kept="as the mean cosine", limit=0.95, far=0.025, thorough=True,
    truth=Truth.CLASS, score=_score, apart=_apart, columns={"neighbour_percent": "nearest neighbour's class right %"},
    reading="cosine to float", distance_name="1 - cosine",
)  # fmt: skip
