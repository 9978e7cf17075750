"""Search of both ends of a range on a histogram: the range with the least weighted squared error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qhyvit import affine
from qhyvit.observers.shared.histogram import Row

# Each end moves alone: shrink factors of the extreme, geometric (outliers can be 50 times the useful range).
COARSE = np.geomspace(1.0, 0.02, 20)
WAY, BEYOND = np.linspace(0.0, 1.0, 9), np.array([1.25, 1.5])  # from an end to its extreme; beyond that
MULTIPLES = np.linspace(0.01, 1.2, 101)  # of min-max: the paper's candidates


@dataclass(frozen=True)
class Found:
    """The best range of a search, its grid and its error."""

    low: float
    high: float
    params: affine.AffineParams
    error: float


def extremes(row: Row) -> tuple[float, float]:
    """Outer edges of the bins in use."""
    used = np.flatnonzero(row.count > 0)
    return float(row.edges[used[0]]), float(row.edges[used[-1] + 1])


def score(row: Row, low: np.ndarray, high: np.ndarray, g: affine.Grid, *, symmetric: bool) -> np.ndarray:
    """Error of each candidate range, [candidates]."""
    params = affine.fit(low, high, g, symmetric=symmetric)
    return row.error(params.scale, params.zero_point.astype(float), g.qmin, g.qmax)


def _pairs(lows: np.ndarray, highs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.meshgrid(lows, highs, indexing="ij")
    return a.ravel(), b.ravel()


def search(
    row: Row, g: affine.Grid, *, symmetric: bool = False, pin_low: float | None = None, joint: bool = False
) -> Found:
    """Best range, coarse then refined. ``pin_low`` fixes the lower end (0 where a kernel wants it).

    ``joint``: the 101 multiples of the min-max range in [0.01, 1.2] that the paper searches, both ends together.
    """
    lowest, highest = extremes(row)
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    if joint:
        span = max(-lowest, highest, 1e-12)
        below, above = (-span, span) if symmetric else (lowest, highest)
        lows, highs = below * MULTIPLES if pin_low is None else np.full(len(MULTIPLES), pin_low), above * MULTIPLES
        errors = score(row, lows, highs, g, symmetric=symmetric)
        best = int(np.argmin(errors))
        low, high = float(lows[best]), float(highs[best])
        return Found(low, high, affine.fit(low, high, g, symmetric=symmetric), float(errors[best]))
    if symmetric:
        span = max(-lowest, highest, 1e-12)
        lows, highs = -span * COARSE, span * COARSE
    else:
        ends = np.unique(lowest * COARSE) if lowest < 0 else np.zeros(1)
        a = np.array([pin_low]) if pin_low is not None else ends
        lows, highs = _pairs(a, highest * COARSE if highest > 0 else np.zeros(1))
    step = COARSE[1] ** 0.5
    for _ in range(4):
        errors = score(row, lows, highs, g, symmetric=symmetric)
        best = int(np.argmin(errors))
        low, high, error = float(lows[best]), float(highs[best]), float(errors[best])
        factors = np.array([step**2, step, 1.0, 1 / step, 1 / step**2])
        if symmetric:
            lows, highs = low * factors, high * factors
        else:
            around = np.unique(low * factors) if pin_low is None else np.array([low])
            lows, highs = _pairs(around, np.unique(high * factors))
        step = step**0.5
    return Found(low, high, affine.fit(low, high, g, symmetric=symmetric), error)


def widened(
    row: Row, found: Found, allowance: float, g: affine.Grid, *, symmetric: bool = False, pin_low: float | None = None
) -> Found:
    """The widest range whose error is within ``allowance`` of ``found``'s: images to come have larger values.

    What a few images show of a tail is little, and where a wider range costs next to nothing there is no reason to clip
    what one of them has. Each end goes towards its extreme on its own, and up to half of that beyond.
    """
    lowest, highest = extremes(row)
    ways = []
    for end, extreme in ((found.low, min(lowest, 0.0)), (found.high, max(highest, 0.0))):
        outer = max(abs(extreme), abs(end)) * (1 if extreme > 0 or end > 0 else -1)
        ways.append(np.concatenate([end + (outer - end) * WAY, outer * BEYOND]))
    lows, highs = ways
    if symmetric:
        highs = np.maximum(-lows, highs)
        lows = -highs
    else:
        lows, highs = _pairs(lows if pin_low is None else np.array([found.low]), highs)
    errors = score(row, lows, highs, g, symmetric=symmetric)
    fits = errors <= found.error + allowance
    if not fits.any():
        return found
    best = int(np.argmax(np.where(fits, highs - lows, -np.inf)))
    low, high = float(lows[best]), float(highs[best])
    return Found(low, high, affine.fit(low, high, g, symmetric=symmetric), float(errors[best]))
