"""Histograms that keep the moments of each bin, so that any grid's squared error on them is nearly exact.

Each bin holds sum(w), sum(w x), sum(w x^2): the weighted squared error of sending the bin to a code's value v is
S2 - 2 v S1 + v^2 S0, exact when all of the bin goes to that code. ``w`` is 1, or the squared gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from qhyvit.observers.shared.observer import ends, rows

BINS = 8192


@dataclass
class Row:
    """Histogram of one channel (or of the whole tensor): moments [bins], ``edges`` [bins + 1]."""

    count: np.ndarray
    s0: np.ndarray
    s1: np.ndarray
    s2: np.ndarray
    edges: np.ndarray

    def error(self, scale: np.ndarray, zero_point: np.ndarray, qmin: int, qmax: int) -> np.ndarray:
        """Weighted squared error of each candidate grid; ``scale``, ``zero_point`` are [candidates].

        Where one code ends and the next begins, running sums tell what lies between: the cost of a grid does not
        depend on the number of bins. A bin that a boundary cuts goes to the side where most of it lies.
        """
        codes = np.arange(qmin, qmax + 1)
        value = (codes - zero_point[:, None]) * scale[:, None]  # [candidates, codes]
        low, width = self.edges[0], (self.edges[-1] - self.edges[0]) / len(self.count)
        ends = ((value[:, :-1] + value[:, 1:]) / 2 - low) / width
        index = np.clip(np.rint(ends), 0, len(self.count)).astype(np.int64)
        s0, s1, s2 = self._running
        of_code = [np.diff(s[index], axis=1, prepend=0.0, append=s[-1]) for s in (s0, s1)]
        error: np.ndarray = s2[-1] - (2 * value * of_code[1] - value * value * of_code[0]).sum(axis=1)
        found: np.ndarray = np.maximum(error, 0.0)
        return found

    @cached_property
    def _running(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums of the moments over the first i bins, [bins + 1] each."""
        s0, s1, s2 = (np.concatenate([[0.0], np.cumsum(s)]) for s in (self.s0, self.s1, self.s2))
        return s0, s1, s2

    def centres(self) -> np.ndarray:
        """A value inside each bin: the weighted mean where there is weight, else the centre."""
        centre = (self.edges[:-1] + self.edges[1:]) / 2
        return np.where(self.s0 > 0, self.s1 / np.where(self.s0 > 0, self.s0, 1), centre)


class PooledRows:
    """Rows that become one, whatever each of them is divided by: bins without a value are left out once."""

    def __init__(self, rows: Sequence[Row]) -> None:
        count = np.concatenate([row.count for row in rows])
        used = np.flatnonzero(count > 0)
        self.count = count[used]
        self.row = np.repeat(np.arange(len(rows)), [len(row.count) for row in rows])[used]
        self.centres, self.s0, self.s1, self.s2 = (
            np.concatenate(parts)[used]
            for parts in zip(*((row.centres(), row.s0, row.s1, row.s2) for row in rows), strict=True)
        )

    def merged(self, divisors: Sequence[float] | np.ndarray, bins: int = BINS) -> Row:
        """One row: of x / divisors[i] for row i, whose weights count x's own units (error * divisors[i]^2).

        So the error of a grid on x / r is given as the error that it makes in x.
        """
        r = np.asarray(divisors, np.float64)[self.row]
        centres = self.centres / r
        low, high = float(centres.min()), float(centres.max())
        width = max(high - low, 1e-12) / (bins - 1)
        index = np.clip(((centres - low) / width).astype(np.int64), 0, bins - 1)
        moments = self.count, self.s0 * r * r, self.s1 * r, self.s2
        count, s0, s1, s2 = (np.bincount(index, moment, minlength=bins) for moment in moments)
        return Row(count, s0, s1, s2, low + width * np.arange(bins + 1))


def _sums(index: torch.Tensor, values: torch.Tensor, size: int) -> torch.Tensor:
    return torch.bincount(index, values.flatten(), minlength=size)


class Histogram:
    """Collects one Row a channel; grows its range by powers of two of the bin width, merging bins."""

    only_counts = False  # moments are not read, and not gathered

    def __init__(self, axis: int | None, bins: int = BINS) -> None:
        self.axis, self.bins = axis, bins
        self.low: torch.Tensor | None = None  # [channels]
        self.width: torch.Tensor | None = None
        self.moments: torch.Tensor | None = None  # [4, channels, bins]: count, w, w x, w x^2

    def update(self, x: torch.Tensor, weight: torch.Tensor | None = None) -> None:
        """Add a batch, with a weight for each value (default 1)."""
        values = rows(x, self.axis).double()
        w = None if weight is None else rows(weight, self.axis).double()
        low, high = ends(values, 1)
        self._reserve(low, high)
        assert self.low is not None
        assert self.width is not None
        assert self.moments is not None
        channels = values.shape[0]
        index = ((values - self.low[:, None]) / self.width[:, None]).long().clamp_(0, self.bins - 1)
        index += torch.arange(channels, device=index.device)[:, None] * self.bins
        flat, size = index.flatten(), channels * self.bins
        counts = torch.bincount(flat, minlength=size).reshape(channels, self.bins)
        self.moments[0] += counts
        self.moments[1] += counts if w is None else _sums(flat, w, size).reshape(channels, self.bins)
        if self.only_counts:
            return
        wx = values if w is None else w * values
        self.moments[2] += _sums(flat, wx, size).reshape(channels, self.bins)
        self.moments[3] += _sums(flat, wx * values, size).reshape(channels, self.bins)

    def _reserve(self, low: torch.Tensor, high: torch.Tensor) -> None:
        """Make sure that [low, high] is inside: the first batch sets the bins with a margin, later ones merge."""
        if self.moments is None or self.low is None or self.width is None:
            span = (high - low).clamp_min(1e-9) * 1.5
            self.low, self.width = low - span / 6, span / self.bins
            self.moments = torch.zeros(4, low.numel(), self.bins, dtype=torch.float64, device=low.device)
            return
        while True:
            below = low < self.low
            outside = (below | (high >= self.low + self.width * self.bins)).nonzero().flatten()
            if not len(outside):
                return
            self._double(outside, below[outside])

    def _double(self, channels: torch.Tensor, down: torch.Tensor) -> None:
        """Merge pairs of bins of ``channels`` [n] and double their ranges, downwards where ``down`` [n] says so."""
        assert self.low is not None
        assert self.width is not None
        assert self.moments is not None
        half = self.moments[:, channels].reshape(4, -1, self.bins // 2, 2).sum(dim=3)
        empty = torch.zeros_like(half)
        below, above = (torch.where(to[:, None], half, empty) for to in (~down, down))
        self.moments[:, channels] = torch.cat([below, above], dim=2)
        self.low[channels] -= torch.where(down, self.width[channels] * self.bins, 0.0)
        self.width[channels] *= 2

    def channels(self) -> list[Row]:
        """The rows collected.

        Raises:
            ValueError: nothing was observed.
        """
        if self.moments is None or self.low is None or self.width is None:
            raise ValueError("nothing was observed")
        m = self.moments.cpu().numpy()
        low, width = self.low.cpu().numpy(), self.width.cpu().numpy()
        steps = np.arange(self.bins + 1)
        return [Row(m[0, c], m[1, c], m[2, c], m[3, c], low[c] + width[c] * steps) for c in range(m.shape[1])]

    def shaped(self, values: list[float]) -> np.ndarray:
        """One value without an axis, else [channels]."""
        array = np.asarray(values, np.float64)
        return array[0] if self.axis is None else array


def serving(histograms: Sequence[Histogram]) -> Histogram:
    """The one of several that gathers what all of them read."""
    return min(histograms, key=lambda h: h.only_counts)


def share(histograms: Sequence[Histogram]) -> None:
    """Let all of them hold what :func:`serving` says has gathered it."""
    one = serving(histograms)
    for other in histograms:
        other.low, other.width, other.moments = one.low, one.width, one.moments
