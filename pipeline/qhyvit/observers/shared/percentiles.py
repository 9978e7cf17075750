"""Ranges at percentiles of a histogram."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qhyvit.observers.shared.histogram import Histogram, Row
from qhyvit.observers.shared.observer import Range


def quantiles(row: Row, clipped: float) -> tuple[float, float]:
    """Ends that leave out the share ``clipped`` of the values, half at each side, to the width of a bin."""
    below = np.cumsum(row.count) / row.count.sum()
    first = int(np.searchsorted(below, clipped / 2))
    last = min(int(np.searchsorted(below, 1 - clipped / 2)), len(below) - 1)
    low, high = float(row.edges[first]), float(row.edges[last + 1])
    return min(low, high), high


class _Percentile(Histogram):
    only_counts = True
    clipped = 0.0

    def range(self) -> Range:
        """(lo, hi) at the quantiles."""
        found = [quantiles(row, self.clipped) for row in self.channels()]
        return self.shaped([low for low, _ in found]), self.shaped([high for _, high in found])


def at(clipped: float) -> Callable[[int | None], _Percentile]:
    """Makes states that clip the share ``clipped``."""

    def new(axis: int | None) -> _Percentile:
        state = _Percentile(axis)
        state.clipped = clipped
        return state

    return new
