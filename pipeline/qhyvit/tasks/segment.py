"""A map of classes: every pixel has one; a single channel is a mask, by a sigmoid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qhyvit.tasks.shared.divergence import kl_of_classes, kl_of_labels
from qhyvit.tasks.shared.label_map import read_label_map
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.score import LabelMaps, Score, Truth
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
    return Alike(float(each.mean()), text, {"pixels_alike": float(each.mean()), "lowest_image": float(each.min())},
                 reading=100 * float(each.mean()))  # fmt: skip


def _apart(reference: np.ndarray, outputs: np.ndarray, layout: Layout) -> np.ndarray:
    """The share of pixels with another class."""
    a, b = (classes_of(layout.parts(x)[0]) for x in (reference, outputs))
    found: np.ndarray = (a != b).mean(axis=(1, 2))
    return found


def _picture(row: np.ndarray, layout: Layout) -> np.ndarray:
    return classes_of(layout.parts(row[None])[0][0])


def _said(row: np.ndarray, layout: Layout, labels: Sequence[str]) -> str:
    """The three largest classes."""
    names = ["background", *labels] if layout.shapes[0][-1] == 1 else labels
    counts = np.bincount(_picture(row, layout).ravel(), minlength=len(names))
    largest = [i for i in np.argsort(-counts, kind="stable")[:3] if counts[i]]
    return ", ".join(f"{names[i]} {100 * counts[i] / counts.sum():.3g} %" for i in largest)


def resized_classes(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    """Class of each pixel of another size, from logits [h, w, classes] that are resized bilinearly, [height, width]."""
    import torch
    import torch.nn.functional as F

    maps = torch.from_numpy(np.ascontiguousarray(logits, np.float32)).permute(2, 0, 1)[None]
    return classes_of(F.interpolate(maps, (height, width), mode="bilinear")[0].permute(1, 2, 0).numpy())


def _score(outputs: np.ndarray, truth: LabelMaps, layout: Layout) -> Score:
    """Mean intersection over union of the classes that are there, and the share of pixels that are right.

    Raises:
        InputError: a label map cannot be read.
    """
    maps = layout.parts(outputs)[0]
    count = max(2, maps.shape[-1])
    known = tuple(range(count)) if truth.classes is None else truth.classes
    table = np.zeros((max(known) + 1,) * 2, np.int64)
    each = []
    for logits, path in zip(maps, truth.paths, strict=True):
        labels = read_label_map(path)
        found = np.asarray(known)[resized_classes(logits, *labels.shape)]
        counted = (labels >= 0) & (labels < len(table))
        pairs = np.bincount(labels[counted] * len(table) + found[counted], minlength=table.size)
        table += pairs.reshape(table.shape)
        each.append(float((labels == found)[counted].mean()) if counted.any() else 1.0)
    both = np.diag(table)
    union = table.sum(axis=0) + table.sum(axis=1) - both
    there = table.sum(axis=1) > 0
    figures = {
        "miou_percent": 100 * float((both[there] / union[there]).mean()) if there.any() else 0.0,
        "pixel_accuracy_percent": 100 * float(both.sum() / max(table.sum(), 1)),
    }
    return Score(figures, np.array(each))


TASK = Task(
    "segment", "a class for every pixel, by a softmax (one channel: a mask, by a sigmoid)", _unfit, _distance, _alike,
    kept="of the pixels", limit=0.9, far=0.5, cut=("SOFTMAX", "LOG_SOFTMAX", "LOGISTIC"), channels_last=True,
    truth=Truth.MAP, score=_score, apart=_apart, said=_said, picture=_picture,
    columns={"miou_percent": "mIoU %", "pixel_accuracy_percent": "pixels right %"},
    reading="pixels as float %",
)  # fmt: skip
