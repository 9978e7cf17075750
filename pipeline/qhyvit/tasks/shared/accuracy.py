"""Accuracy of files that run: top-1, top-5, agreement, and McNemar's paired test on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Accuracy:
    """Counts of one model on labelled images, and against a float model on the same images.

    ``gained`` images are right only here, ``lost`` ones only in float; ``p_value`` is McNemar's exact test.
    """

    images: int
    top1: int
    top5: int
    agree: int | None = None
    gained: int | None = None
    lost: int | None = None

    @property
    def p_value(self) -> float | None:
        """Two-sided exact binomial probability of a split as uneven as gained : lost."""
        if self.gained is None or self.lost is None:
            return None
        from scipy.stats import binomtest

        return float(binomtest(self.gained, self.gained + self.lost).pvalue) if self.gained + self.lost else 1.0

    def __add__(self, other: Accuracy) -> Accuracy:
        """Counts of two sets of images together; what one of them lacks, the sum lacks."""
        more = ((getattr(self, name), getattr(other, name)) for name in ("agree", "gained", "lost"))
        paired = (None if a is None or b is None else a + b for a, b in more)
        return Accuracy(self.images + other.images, self.top1 + other.top1, self.top5 + other.top5, *paired)

    def to_json(self) -> dict[str, Any]:
        """Counts and percentages."""
        n = max(self.images, 1)
        shares = {"top1_percent": 100 * self.top1 / n, "top5_percent": 100 * self.top5 / n}
        if self.agree is not None:
            shares["agreement_percent"] = 100 * self.agree / n
        return {**vars(self), **shares, "p_value": self.p_value}


def ranked(logits: np.ndarray) -> np.ndarray:
    """Classes of each image, the best first, [N, classes]; ties go to the lower index, so that no luck is scored."""
    found: np.ndarray = np.argsort(-logits, axis=1, kind="stable")
    return found


def predict(run: Callable[[Any], np.ndarray], inputs: Iterable[Any]) -> np.ndarray:
    """Logits of every input, [N, classes]."""
    return np.stack([np.asarray(run(x), np.float64).ravel() for x in inputs])


def count(logits: np.ndarray, classes: np.ndarray, reference: np.ndarray | None = None) -> Accuracy:
    """Score ``logits`` [N, classes] against class indices [N], and against a float model's logits.
    """
    order = ranked(logits)[:, :5]
    right = order[:, 0] == classes
    top5 = int((order == classes[:, None]).any(axis=1).sum())
    if reference is None:
        return Accuracy(len(classes), int(right.sum()), top5)
    best = ranked(reference)[:, 0]
    float_right = best == classes
    return Accuracy(
        len(classes), int(right.sum()), top5, int((best == order[:, 0]).sum()),
        int((right & ~float_right).sum()), int((~right & float_right).sum()),
    )  # fmt: skip
