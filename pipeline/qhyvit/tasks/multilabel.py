"""Labels that are each there or not, by a sigmoid; one logit (a classifier of yes and no) is the smallest case."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qhyvit.tasks.shared.divergence import kl_of_labels
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.task import Alike, Distance, Task, unfit_for_rows

if TYPE_CHECKING:
    import torch


def _unfit(layout: Layout) -> str:
    return unfit_for_rows(layout, 1, "labels")


def _mean_kl(reference: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Mean KL of the labels of each image, [B, labels] -> [B]."""
    return kl_of_labels(reference, outputs).mean(dim=1)


def _distance(layout: Layout, reference: torch.Tensor) -> Distance:
    return _mean_kl


def _alike(reference: np.ndarray, outputs: np.ndarray, layout: Layout) -> Alike:
    """The share of labels that lie on the same side of probability one half."""
    same = (reference > 0) == (outputs > 0)
    flips = int((~same).sum())
    text = f"{flips} of {same.size} labels flipped, {int(same.all(axis=1).sum())} of {len(same)} images all alike"
    figures = {"labels": same.size, "flips": flips, "images_alike": int(same.all(axis=1).sum())}
    return Alike(float(same.mean()), text, figures, same.size)


TASK = Task(
    "multilabel", "labels that are there or not, by a sigmoid; also one yes or no", _unfit, _distance, _alike,
    kept="of the labels", limit=0.95, far=0.5, cut=("LOGISTIC",),
)  # fmt: skip
