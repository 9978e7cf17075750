"""Percentiles of the values: clips the rarest 0.01 % (0.005 % at each end)."""

from __future__ import annotations

import numpy as np

from qhyvit.observers._base import Observer, Range
from qhyvit.observers._histogram import Histogram

CLIPPED = 1e-4


class Percentile(Histogram):
    """Ends at the quantiles CLIPPED / 2 and 1 - CLIPPED / 2, to the width of a bin."""

    def range(self) -> Range:
        """(lo, hi) at the quantiles."""
        lows, highs = [], []
        for row in self.channels():
            below = np.cumsum(row.count) / row.count.sum()
            first = int(np.searchsorted(below, CLIPPED / 2))
            last = int(np.searchsorted(below, 1 - CLIPPED / 2))
            lows.append(row.edges[first])
            highs.append(row.edges[last + 1])
        return self.shaped(lows), self.shaped(highs)


def _new(axis: int | None) -> Percentile:
    return Percentile(axis)


OBSERVER = Observer("percentile", "clips the rarest 0.01 % of the values", _new)
