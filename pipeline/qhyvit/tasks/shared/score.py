"""How right outputs are by labels, and whether two files differ in that by more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np


class Truth(Enum):
    """What labels say of an image: its class; a value for each output; the class of each pixel; nothing."""

    CLASS = "a class"
    VALUES = "values"
    MAP = "a map"
    NONE = "nothing"


@dataclass(frozen=True)
class LabelMaps:
    """Maps of the right classes, as files.

    Args:
        paths: a gray or palette picture for each image; a pixel's value is its class.
        classes: which class of the labels each of the model's is, where the model has others; None: the same ones. A
            label that is none of these is void: it is not counted.
    """

    paths: Sequence[Path]
    classes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Score:
    """How right the outputs of one file are.

    Args:
        figures: by name, what people read; ``_percent`` where it is one.
        each: [N], what the paired test compares: whether each image is right (bool), or a figure, larger is better.
        decisions: [N], what was decided about each image, where that is one thing.
    """

    figures: Mapping[str, float]
    each: np.ndarray
    decisions: np.ndarray | None = None


@dataclass(frozen=True)
class Paired:
    """Two files on the same images: on how many the first is better and worse, and how likely chance does that.

    ``test``: McNemar's exact test of right and wrong, or Wilcoxon's signed-rank test of figures. ``agree``: share of
    images that are decided alike, None where there are no decisions.
    """

    test: str
    gained: int
    lost: int
    p_value: float
    agree: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return vars(self)


def paired(first: Score, second: Score) -> Paired:
    """Compare two files' scores of the same images."""
    agree = None
    if first.decisions is not None and second.decisions is not None:
        agree = float((first.decisions == second.decisions).mean())
    difference = first.each.astype(np.float64) - second.each.astype(np.float64)
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    if not gained + lost:
        p_value = 1.0
    elif first.each.dtype == bool:
        from scipy.stats import binomtest

        p_value = float(binomtest(gained, gained + lost).pvalue)
    else:
        from scipy.stats import wilcoxon

        p_value = float(wilcoxon(difference[difference != 0]).pvalue)
    test = "McNemar" if first.each.dtype == bool else "Wilcoxon"
    return Paired(test, gained, lost, p_value, agree)
