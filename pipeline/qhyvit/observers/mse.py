"""Histogram-MSE: the range whose 8-bit grid has the least squared error, both ends searched independently."""

from __future__ import annotations

from qhyvit import affine
from qhyvit.observers.shared.histogram import Histogram
from qhyvit.observers.shared.observer import Observer, Range
from qhyvit.observers.shared.search import search


class Mse(Histogram):
    """Least squared rounding and clipping error on the histogram."""

    def range(self) -> Range:
        """(lo, hi) of least error."""
        found = [search(row, affine.grid()) for row in self.channels()]
        return self.shaped([f.low for f in found]), self.shaped([f.high for f in found])


def _new(axis: int | None) -> Mse:
    return Mse(axis)


OBSERVER = Observer("mse", "least squared error of the 8-bit grid, both ends searched", _new)
