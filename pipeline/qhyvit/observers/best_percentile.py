"""The percentile of 99.9, 99.99 and 99.999 % with the least squared error at 8 bits (RepQ-ViT's calibration)."""

from __future__ import annotations

import numpy as np

from qhyvit import affine
from qhyvit.observers.shared.histogram import Histogram
from qhyvit.observers.shared.observer import Observer, Range
from qhyvit.observers.shared.percentiles import quantiles

CLIPPED = (1e-3, 1e-4, 1e-5)


class BestPercentile(Histogram):
    """Tries each of ``CLIPPED`` on the histogram."""

    def range(self) -> Range:
        """(lo, hi) with the least squared error."""
        grid, lows, highs = affine.grid(), [], []
        for row in self.channels():
            ends = np.array([quantiles(row, c) for c in CLIPPED])
            params = affine.fit(ends[:, 0], ends[:, 1], grid, symmetric=False)
            errors = row.error(params.scale, params.zero_point.astype(float), grid.qmin, grid.qmax)
            low, high = ends[int(np.argmin(errors))]
            lows.append(low)
            highs.append(high)
        return self.shaped(lows), self.shaped(highs)


def _new(axis: int | None) -> BestPercentile:
    return BestPercentile(axis)


OBSERVER = Observer("best_percentile", "the best of three percentiles by squared error", _new)
