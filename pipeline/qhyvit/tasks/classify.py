"""One class of several: the best one of each image is what counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qhyvit.tasks.shared.divergence import kl_of_classes
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.task import Alike, Distance, Task, unfit_for_rows

if TYPE_CHECKING:
    import torch

SURE = 0.5  # probability of the best class from which on the float network is sure
LEAST_SURE = 0.25  # of the images; below, there are hardly decisions to compare


def _unfit(layout: Layout) -> str:
    return unfit_for_rows(layout, 2, "classes")


def _distance(layout: Layout, reference: torch.Tensor) -> Distance:
    return kl_of_classes


def _alike(reference: np.ndarray, outputs: np.ndarray, layout: Layout) -> Alike:
    """The share of the images of which float is sure that have the same best class; ties go to the lower index."""
    same = reference.argmax(1) == outputs.argmax(1)
    shares = np.exp(reference - reference.max(axis=1, keepdims=True))
    sure = 1.0 / shares.sum(axis=1) >= SURE
    count, kept = int(sure.sum()), int(same[sure].sum())
    text = f"{int(same.sum())} of {len(same)} images alike; {kept} of {count} of which float is sure"
    doubt = ""
    if sure.mean() < LEAST_SURE:
        doubt = f"float is sure of {sure.mean():.0%} of the images only, as untrained weights are"
    figures = {"agree": int(same.sum()), "sure": count, "sure_agree": kept}
    return Alike(kept / max(count, 1), text, figures, count, doubt)


# far: mobilevitv2_075 has a KL of 0.12 to 0.19 there, and 97 of 100 decisions alike without islands, which would cost
# it as much time as int8 saves
TASK = Task(
    "classify", "one class of several, by a softmax", _unfit, _distance, _alike,
    kept="of the decisions that float is sure of", limit=0.9, far=0.5, cut=("SOFTMAX", "LOG_SOFTMAX"),
)  # fmt: skip
