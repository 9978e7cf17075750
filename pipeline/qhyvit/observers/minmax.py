"""Smallest and largest value seen."""

from __future__ import annotations

import torch

from qhyvit.observers.shared.observer import Observer, Range, ends, rows, squeeze


class MinMax:
    """Running minimum and maximum."""

    def __init__(self, axis: int | None) -> None:
        self.axis = axis
        self.low: torch.Tensor | None = None
        self.high: torch.Tensor | None = None

    def update(self, x: torch.Tensor) -> None:
        """Widen the range by one batch."""
        low, high = ends(rows(x, self.axis), 1)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    def range(self) -> Range:
        """(lo, hi) over all that was seen."""
        if self.low is None or self.high is None:
            raise ValueError("nothing was observed")
        return squeeze(self.low, self.axis), squeeze(self.high, self.axis)


OBSERVER = Observer("minmax", "smallest and largest value", MinMax)
