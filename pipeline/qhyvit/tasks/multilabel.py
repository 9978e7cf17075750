"""Labels that are each there or not, by a sigmoid; one logit (a classifier of yes and no) is the smallest case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from qhyvit.tasks.shared.divergence import kl_of_labels
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.score import Score, Truth
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
    return Alike(float(same.mean()), text, figures, same.size, reading=100 * float(same.mean()))


def _apart(reference: np.ndarray, outputs: np.ndarray, layout: Layout) -> np.ndarray:
    """Labels that flipped, as a share."""
    found: np.ndarray = ((reference > 0) != (outputs > 0)).mean(axis=1)
    return found


def _said(row: np.ndarray, layout: Layout, labels: Sequence[str]) -> str:
    there = [f"{labels[i]} ({100 * expit(row[i]):.3g} %)" for i in range(len(row)) if row[i] > 0]
    return ", ".join(there) or "none"


def average_precision(outputs: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the images that have a label of the precision among all that are at least as likely, [N] and [N]."""
    order = np.argsort(-outputs, kind="stable")
    hits = truth[order] > 0
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def _wrong_truth(truth: np.ndarray, outputs: int) -> str:
    """Whether labels are something else than there or not there."""
    known = bool(np.isin(truth, (0, 1)).all())
    return "" if known else "labels of a multilabel bundle must be 0 or 1 in every column but file"


def _score(outputs: np.ndarray, truth: np.ndarray, layout: Layout) -> Score:
    """Mean average precision over the labels that some image has, and the share of labels that are right."""
    there = [i for i in range(truth.shape[1]) if (truth[:, i] > 0).any()]
    precisions = [average_precision(outputs[:, i], truth[:, i]) for i in there]
    right = (outputs > 0) == (truth > 0)
    figures = {
        "map_percent": 100 * float(np.mean(precisions)) if there else 0.0,
        "right_percent": 100 * float(right.mean()),
    }
    one = truth.shape[1] == 1
    each = right[:, 0] if one else right.mean(axis=1)
    return Score(figures, each, (outputs[:, 0] > 0).astype(np.int64) if one else None)


TASK = Task(
    "multilabel", "labels that are there or not, by a sigmoid; also one yes or no", _unfit, _distance, _alike,
    kept="of the labels", limit=0.95, far=0.5, cut=("LOGISTIC",),
    truth=Truth.VALUES, truth_is_needed=True, wrong_truth=_wrong_truth,
    score=_score, apart=_apart, said=_said,
    columns={"map_percent": "mAP %", "right_percent": "labels right %"}, reading="labels as float %",
)  # fmt: skip
