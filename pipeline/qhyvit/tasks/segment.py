"""A map of classes: every pixel has one; a single channel is a mask, by a sigmoid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qhyvit.tasks.shared.divergence import kl_of_classes, kl_of_labels
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.task import Alike, Distance, Task

if TYPE_CHECKING:
    import torch


def _unfit(layout: Layout) -> str:
    one = len(layout.shapes) == 1 and len(layout.shapes[0]) == 3
    return "" if one else "needs one output [1, height, width, classes]"


def classes_of(maps: np.ndarray) -> np.ndarray:
    """Class of each pixel of logits [..., classes], or 0 and 1 of a mask [..., 1]; ties go to the lower index."""
    return (maps[..., 0] > 0).astype(np.int64) if maps.shape[-1] == 1 else maps.argmax(-1)


def _distance(layout: Layout, reference: torch.Tensor) -> Distance:
    """Mean KL of a pixel."""

    def distance(target: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        a, b = (layout.parts(x)[0] for x in (target, outputs))
        kl = kl_of_labels(a, b)[..., 0] if a.shape[-1] == 1 else kl_of_classes(a, b)
        return kl.mean(dim=(1, 2))

    return distance


def _alike(reference: np.ndarray, outputs: np.ndarray, layout: Layout) -> Alike:
    """The share of pixels that have the same class."""
    a, b = (classes_of(layout.parts(x)[0]) for x in (reference, outputs))
    each = (a == b).mean(axis=(1, 2))
    text = f"{each.mean():.2%} of the pixels alike, {each.min():.2%} in the worst of {len(each)} images"
    return Alike(float(each.mean()), text, {"pixels_alike": float(each.mean()), "lowest_image": float(each.min())})


TASK = Task(
    "segment", "a class for every pixel, by a softmax (one channel: a mask, by a sigmoid)", _unfit, _distance, _alike,
    kept="of the pixels", limit=0.9, far=0.5, cut=("SOFTMAX", "LOG_SOFTMAX", "LOGISTIC"), channels_last=True,
)  # fmt: skip
