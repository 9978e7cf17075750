"""Measured values: every output is a number that counts in units of its own spread over the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qhyvit.tasks.shared.divergence import variance
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.score import Score, Truth
from qhyvit.tasks.shared.task import Alike, Distance, Task, unfit_for_rows

if TYPE_CHECKING:
    import torch

ALL_ALIKE = 1e-4  # of the largest value: a spread below it is none


def _unfit(layout: Layout) -> str:
    return unfit_for_rows(layout, 1, "values")


def _distance(layout: Layout, reference: torch.Tensor) -> Distance:
    """Squared error of each value over its variance on the calibration images, their mean."""
    spread = variance(reference, (0,))

    def distance(target: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        return ((outputs - target) ** 2 / spread).mean(dim=1)

    return distance


def _alike(reference: np.ndarray, outputs: np.ndarray, layout: Layout) -> Alike:
    """The share of each value's variance over the images that is kept (R squared); the lowest of all values."""
    error = np.sqrt(((outputs - reference) ** 2).mean(axis=0))
    spread = reference.std(axis=0)
    kept = 1 - (error / np.maximum(spread, 1e-12)) ** 2
    worst = int(kept.argmin())
    text = f"root mean square error {error[worst]:.4g} where values spread by {spread[worst]:.4g} (value {worst})"
    doubt = ""
    if bool((spread < ALL_ALIKE * np.abs(reference).max(axis=0)).any()):
        doubt = "float gives nearly the same value for every image"
    figures = {"rms_error": float(error[worst]), "spread": float(spread[worst]), "r_squared": float(kept[worst])}
    each = tuple(map(float, kept))
    return Alike(each[worst], text, figures, doubt=doubt, reading=each[worst], each=each)


def _apart(reference: np.ndarray, outputs: np.ndarray, layout: Layout) -> np.ndarray:
    """The largest error of a value in units of its spread."""
    spread = np.maximum(reference.std(axis=0), 1e-12)
    found: np.ndarray = (np.abs(outputs - reference) / spread).max(axis=1)
    return found


def _said(row: np.ndarray, layout: Layout, labels: Sequence[str]) -> str:
    names = labels or [str(i) for i in range(len(row))]
    return ", ".join(f"{name} {value:.4g}" for name, value in zip(names, row, strict=True))


def _score(outputs: np.ndarray, truth: np.ndarray, layout: Layout) -> Score:
    """Mean absolute and root mean square error over all values, and the mean R squared of the values."""
    error = outputs - truth
    spread = np.maximum(truth.std(axis=0), 1e-12)
    figures = {
        "mae": float(np.abs(error).mean()), "rmse": float(np.sqrt((error**2).mean())),
        "r_squared": float((1 - ((error / spread) ** 2).mean(axis=0)).mean()),
    }  # fmt: skip
    return Score(figures, -np.abs(error / spread).mean(axis=1))


TASK = Task(
    "regress", "measured values, each in units of its own spread", _unfit, _distance, _alike,
    kept="of the variance of each value", limit=0.9, far=0.05, thorough=True,
    truth=Truth.VALUES, truth_is_needed=True, score=_score, apart=_apart, said=_said,
    columns={"mae": "mean error", "rmse": "RMS error", "r_squared": "R squared"}, reading="R squared to float",
    errors=("mae", "rmse"), distance_name="error",
)  # fmt: skip
