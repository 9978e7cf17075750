"""Figures from samples: percentiles of latencies, and ratios of runs that were interleaved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Of ``count`` samples, milliseconds. Percentiles are linear between the two nearest samples."""

    count: int
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    mean: float
    std: float

    def to_json(self) -> dict[str, float]:
        """Plain data, rounded to a tenth of a microsecond."""
        return {k: v if k == "count" else round(v, 4) for k, v in asdict(self).items()}


def summarize(samples_ms: Sequence[float]) -> Summary:
    """Figures of at least one sample.

    Raises:
        ValueError: no sample.
    """
    if len(samples_ms) == 0:
        raise ValueError("no samples")
    x = np.asarray(samples_ms, np.float64)
    p50, p90, p95, p99 = (float(v) for v in np.percentile(x, (50, 90, 95, 99)))
    std = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    return Summary(len(x), float(x.min()), p50, p90, p95, p99, float(x.max()), float(x.mean()), std)


@dataclass(frozen=True)
class Ratio:
    """Median over rounds of a_i / b_i, and the middle half of them: what both met in a round cancels."""

    median: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Plain data."""
        return {k: round(v, 4) for k, v in asdict(self).items()}


def ratio(a_ms: Sequence[float], b_ms: Sequence[float]) -> Ratio:
    """Ratios of the rounds that both have.

    Raises:
        ValueError: no round in common.
    """
    rounds = min(len(a_ms), len(b_ms))
    if rounds == 0:
        raise ValueError("no rounds in common")
    ratios = np.asarray(a_ms[:rounds], np.float64) / np.asarray(b_ms[:rounds], np.float64)
    low, median, high = (float(v) for v in np.percentile(ratios, (25, 50, 75)))
    return Ratio(median, low, high)
