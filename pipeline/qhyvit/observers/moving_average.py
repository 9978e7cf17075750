"""Moving average of each image's minimum and maximum, as LiteRT's own calibrator takes it (momentum 0.95)."""

from __future__ import annotations

import torch

from qhyvit.observers.shared.observer import Observer, Range, ends, rows, squeeze

MOMENTUM = 0.95


class MovingAverage:
    """lo = 0.95 lo + 0.05 min(image), the first image as it is."""

    def __init__(self, axis: int | None) -> None:
        self.axis = axis
        self.ends: torch.Tensor | None = None  # [2, channels]

    def update(self, x: torch.Tensor) -> None:
        """Take the images of a batch one after the other."""
        for image in torch.split(x.detach(), 1):
            own = torch.stack(ends(rows(image, self.axis), 1))
            self.ends = own if self.ends is None else MOMENTUM * self.ends + (1 - MOMENTUM) * own

    def range(self) -> Range:
        """(lo, hi) averaged."""
        if self.ends is None:
            raise ValueError("nothing was observed")
        return squeeze(self.ends[0], self.axis), squeeze(self.ends[1], self.axis)


OBSERVER = Observer("moving_average", "moving average of each image's extremes, momentum 0.95", MovingAverage)
