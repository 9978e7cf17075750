"""One class of several: the best one of each image is what counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from qhyvit.tasks.shared.accuracy import count as accuracy
from qhyvit.tasks.shared.accuracy import ranked
from qhyvit.tasks.shared.divergence import kl_of_classes
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.score import Score, Truth
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
    sure = softmax(reference, axis=1).max(axis=1) >= SURE
    count, kept = int(sure.sum()), int(same[sure].sum())
    text = f"{int(same.sum())} of {len(same)} images alike; {kept} of {count} of which float is sure"
    doubt = ""
    if sure.mean() < LEAST_SURE:
        doubt = f"float is sure of {sure.mean():.0%} of the images only, as untrained weights are"
    figures = {"agree": int(same.sum()), "sure": count, "sure_agree": kept}
    return Alike(kept / max(count, 1), text, figures, count, doubt, 100 * float(same.mean()))


def _apart(reference: np.ndarray, outputs: np.ndarray, layout: Layout) -> np.ndarray:
    """Float's probability of its best class, where the other file has another."""
    best = ranked(reference)[:, 0]
    shares = softmax(reference, axis=1)[np.arange(len(best)), best]
    found: np.ndarray = np.where(best == ranked(outputs)[:, 0], 0.0, shares)
    return found


def _said(row: np.ndarray, layout: Layout, labels: Sequence[str]) -> str:
    best = int(ranked(row[None])[0, 0])
    return f"{labels[best]} ({100 * softmax(row)[best]:.3g} %)"


def _wrong_truth(truth: np.ndarray, outputs: int) -> str:
    """Whether labels name classes that the model has not."""
    if not len(truth) or truth.max() < outputs:
        return ""
    one = truth.min() == 1 and truth.max() == outputs
    hint = "; they count from 1: subtract 1, class_index counts from 0" if one else ""
    return f"labels go up to class {truth.max()}, the model has {outputs} classes{hint}"


def _score(outputs: np.ndarray, truth: np.ndarray, layout: Layout) -> Score:
    order = ranked(outputs)
    found = accuracy(outputs, truth)
    percent = {"top1_percent": 100 * found.top1 / found.images, "top5_percent": 100 * found.top5 / found.images}
    return Score(percent, order[:, 0] == truth, order[:, 0])


# far: mobilevitv2_075 has a KL of 0.12 to 0.19 there, and 97 of 100 decisions alike without islands, which would cost
# it as much time as int8 saves
TASK = Task(
    "classify", "one class of several, by a softmax", _unfit, _distance, _alike,
    kept="of the decisions that float is sure of", limit=0.9, far=0.5, cut=("SOFTMAX", "LOG_SOFTMAX"),
    truth=Truth.CLASS, truth_is_needed=True, wrong_truth=_wrong_truth, one_class=True,
    score=_score, apart=_apart, said=_said,
    columns={"top1_percent": "top-1 %", "top5_percent": "top-5 %"}, reading="agrees with float %",
)  # fmt: skip
