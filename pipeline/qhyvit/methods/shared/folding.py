"""Granularity: which tensors get one scale a channel through a fold, decided by the objective."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from qhyvit import affine
from qhyvit.folds import all_folds
from qhyvit.folds.shared.factor_layers import as_layers
from qhyvit.folds.shared.fold import Place
from qhyvit.folds.shared.scaling import CannotScaleError
from qhyvit.graph.ir import Graph
from qhyvit.latency.profile import LatencyProfile, default_profile
from qhyvit.lowering.contracts import groups
from qhyvit.methods.shared.hessian import Statistics
from qhyvit.methods.shared.problem import Problem
from qhyvit.observers.shared.histogram import PooledRows
from qhyvit.observers.shared.search import Found, search
from qhyvit.ops.shared.layer import layer_of
from qhyvit.plan import FoldNote
from qhyvit.sim.checked import Edit

Ties = Mapping[int, Sequence[int]]  # tensor id -> the ids of all that share its scale and are rounded

# Full equalization, and the balance between activations and their readers' weights. A floor keeps channels of small
# values from taking the codes of all others: SiLU's negative side is -0.28 in each, and -0.28 / r where r is small.
POWERS_AND_FLOORS = ((1.0, 2.0**-10), (1.0, 2.0**-6), (1.0, 2.0**-4), (1.0, 2.0**-3), (0.5, 2.0**-10))
LEAST_LOG = math.log(2.0**-10)  # of a channel's scale below the largest one
STEPS_FOR_ALL, RATE_FOR_ALL = 200, 0.1  # of the descent that finds one scale for several tensors
LEAST_GAIN = 0.002  # of the whole objective: below, a fold is not worth an edit
GAIN_PER_MS = 0.15  # what a millisecond must gain of it


@dataclass(frozen=True)
class Candidate:
    """One fold at one place, its channel scale [C] and what the objective loses by it (positive is good)."""

    fold: str
    place: Place
    r: np.ndarray
    gain: float


def all_places(graph: Graph) -> list[tuple[str, Place]]:
    """Every place of every fold."""
    return [(name, place) for name, fold in all_folds().items() for place in fold.places(graph)]


def _readers_weight_error(graph: Graph, tensor: int, r: np.ndarray, statistics: Statistics, bits: int) -> float:
    """Weighted error that rounding the readers' weights makes, with their input channels multiplied by r.

    Per output channel o: sum(g_o^2) * s_o^2 / 12 * sum_c E[x_c^2] / r_c^2, s_o = max_c |W_oc r_c| / 127.
    """
    total, energy = 0.0, statistics.energy[tensor].double().numpy() / r**2
    for node in graph.users(tensor):
        layer = layer_of(graph, node)
        if layer is None or layer.data != tensor or not layer.mixes_channels or layer.out not in statistics.weight:
            continue  # a depthwise reader has a scale for each channel anyway
        scale = layer.along_data(r)
        if scale is None:
            continue
        w = layer.rows(np.abs(graph.constant(layer.weight).astype(np.float64)) * scale).numpy()  # [G, O, K]
        step = w.max(axis=2) / affine.grid(bits).qmax
        weight = statistics.weight[layer.out].double().numpy().reshape(step.shape)
        read = energy.reshape(layer.groups, -1)
        error = (weight * step**2).sum(axis=1) / 12 * read.sum(axis=1) * (w.shape[2] // read.shape[1])
        total += float(error.sum())
    return total


@dataclass(frozen=True)
class _Together:
    """Tensors that share one scale: those that a place divides, with the position in r of each channel, and others."""

    scaled: tuple[tuple[int, np.ndarray], ...]
    others: tuple[int, ...] = ()

    def pool(self, statistics: Statistics) -> PooledRows:
        """What was seen of them, a channel of those that are divided."""
        own = [statistics.by_channel[t] for t, _ in self.scaled] + [statistics.histograms[t] for t in self.others]
        return PooledRows([row for histogram in own for row in histogram.channels()])

    def best(self, pool: PooledRows, r: np.ndarray, bits: int) -> Found:
        """The range with the least error, of what :meth:`pool` gave."""
        divisors = [*(_along(r, position) for _, position in self.scaled), np.ones(len(self.others))]
        return search(pool.merged(np.concatenate(divisors)), affine.grid(bits))


def _along(r: np.ndarray, position: np.ndarray) -> np.ndarray:
    """r for each channel, 1 where it has none."""
    return np.where(position >= 0, r[position], 1.0)


def _positions(place: Place) -> dict[int, np.ndarray]:
    """The position in r of each channel of every tensor that the place divides."""
    own = dict.fromkeys(place.tensors, np.arange(place.channels))
    return own | {t: np.array(position) for t, position in place.parts}


def _all_together(place: Place, ties: Ties, statistics: Statistics) -> list[_Together]:
    """The place's tensors by the scales that they share."""
    positions, found, seen = _positions(place), [], set()
    for t in positions:
        if t in seen:
            continue
        tied = [m for m in ties.get(t, (t,)) if m in statistics.peak]
        seen.update(tied)
        scaled = tuple((m, positions[m]) for m in tied if m in positions)
        found.append(_Together(scaled, tuple(m for m in tied if m not in positions)))
    return found


def _peaks(each: _Together, statistics: Statistics, channels: int) -> tuple[np.ndarray, float]:
    """Largest |x| at each position of r [C], and of all that r does not divide."""
    peaks, rest = np.zeros(channels), max((float(statistics.peak[t].max()) for t in each.others), default=0.0)
    for t, position in each.scaled:
        peak, inside = statistics.peak[t].double().numpy(), position >= 0
        np.maximum.at(peaks, position[inside], peak[inside])
        rest = max(rest, float(peak[~inside].max(initial=0.0)))
    return peaks, rest


def _weights(each: _Together, statistics: Statistics, channels: int) -> tuple[np.ndarray, float]:
    """Sum of the squared gradients at each position of r [C], and of all that r does not divide."""
    weights, rest = np.zeros(channels), sum(float(statistics.weight[t].sum()) for t in each.others)
    for t, position in each.scaled:
        weight, inside = statistics.weight[t].double().numpy(), position >= 0
        np.add.at(weights, position[inside], weight[inside])
        rest += float(weight[~inside].sum())
    return weights, rest


def _scales(statistics: Statistics, place: Place, together: Sequence[_Together], bits: int) -> list[np.ndarray]:
    """r from the true channel maxima of the tensor that the readers see: clipped outliers cost more than all else.

    And one for all tensors of the place. On the grid of ``bits`` where the place weighs by it.
    """
    peak = statistics.peak[place.tensors[-1]].double().numpy()
    ratio = peak / max(float(peak.max()), 1e-12)
    tried = [np.maximum(ratio, floor) ** power for power, floor in POWERS_AND_FLOORS]
    if len(together) > 1 or any(each.others or place.parts for each in together):
        tried.append(_for_all(together, statistics, place.channels))
    if place.exact_power:
        top = affine.grid(bits).qmax
        codes = [np.rint(top * (r / r.max()) ** place.exact_power).clip(min=1) for r in tried]
        tried = [r.max() * (c / top) ** (1 / place.exact_power) for r, c in zip(tried, codes, strict=True)]
    return list({r.tobytes(): r for r in tried}.values())


def _for_all(together: Sequence[_Together], statistics: Statistics, channels: int) -> np.ndarray:
    """The r [C] for which all tensors together lose least where none is clipped.

    What shares scale s has steps of max_c(peak_sc / r_c) and loses sum_c weight_sc r_c^2 of their square: convex in
    log r. What r does not divide has r = 1.
    """
    peaks, weights = (
        np.stack([np.append(*of(each, statistics, channels)) for each in together]) for of in (_peaks, _weights)
    )
    logs = np.log(np.maximum(peaks, 1e-12))
    largest = logs[:, :-1].max(axis=0)
    # where nothing lies outside, r is free up to a factor
    x = np.maximum(largest - largest.max(), LEAST_LOG)
    best, least = x, math.inf
    mean, square = np.zeros((2, channels))
    for i in range(STEPS_FOR_ALL):  # Adam; for vectors as short as these, torch's takes fourteen times as long
        lost, slope = _lost_by_all(logs, weights, x)
        if lost < least:
            best, least = x, lost
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        rate = RATE_FOR_ALL * (1 + math.cos(math.pi * i / STEPS_FOR_ALL)) / 2 / (1 - 0.9 ** (i + 1))
        x = x - rate * mean / (np.sqrt(square / (1 - 0.999 ** (i + 1))) + 1e-8)
    if not peaks[:, -1].any():
        best = best - best.max()
    found: np.ndarray = np.exp(np.maximum(best, best.max() + LEAST_LOG))
    return found


def _lost_by_all(logs: np.ndarray, weights: np.ndarray, x: np.ndarray) -> tuple[float, np.ndarray]:
    """Logarithm of what :func:`_for_all` minimises for log r ``x`` [C], and its slope; the others are [S, C + 1]."""
    r = np.append(x, 0.0)
    gaps = logs - r
    most, energies = gaps.max(axis=1), weights * np.exp(2 * r)
    energy, largest = energies.sum(axis=1) + 1e-300, gaps == most[:, None]
    lost = 2 * most + np.log(energy)
    part = np.exp(lost - lost.max())
    share = part / part.sum()
    # where several channels are the largest, each moves the step by its part
    slope = 2 * ((share / energy) @ energies - (share / largest.sum(axis=1)) @ largest)
    return float(lost.max() + np.log(part.sum())), slope[:-1]


def _option(
    graph: Graph, name: str, place: Place, r: np.ndarray, pooled: Sequence[tuple[_Together, PooledRows]],
    statistics: Statistics, bits: int,
) -> Candidate:  # fmt: skip
    """The fold with this scale; ``gain`` is minus the objective's part that it governs."""
    best = [each.best(pool, r, bits) for each, pool in pooled]
    positions = _positions(place)
    weights = sum(_readers_weight_error(graph, t, _along(r, p), statistics, bits) for t, p in positions.items())
    cost = sum(b.error for b in best) + weights
    return Candidate(name, place, r, -cost)


def candidates(
    graph: Graph, places: Sequence[tuple[str, Place]], statistics: Statistics, total: float, bits: int = 8,
    latency: LatencyProfile | None = None,
) -> list[Candidate]:  # fmt: skip
    """The fold and scale with the largest gain at each place, largest first, those above the threshold.

    Args:
        latency: times of the ops that come in; None: the default.
    """
    found, latency = [], latency or default_profile()
    ties = {t: group.roots for group in groups(graph) for t in group.roots}
    for name, place in places:
        place = _counted(place, statistics)
        if not place.tensors:
            continue
        together = _all_together(place, ties, statistics)
        scales = _scales(statistics, place, together, bits)
        pooled = [(each, each.pool(statistics)) for each in together]
        options = [_option(graph, name, place, r, pooled, statistics, bits) for r in scales]
        plain = _option(graph, name, place, np.ones(place.channels), pooled, statistics, bits)
        best = min(options, key=lambda o: -o.gain)
        gain = best.gain - plain.gain
        added, saved = (sum(latency.ms(work) or 0.0 for work in works) for works in (place.adds, place.saves))
        cost_ms = max(added - saved, 0.0)
        if gain > (LEAST_GAIN + GAIN_PER_MS * cost_ms) * total:
            found.append(replace(best, gain=gain))
    return apart(sorted(found, key=lambda c: -c.gain))


def _counted(place: Place, statistics: Statistics) -> Place:
    """The place with what the statistics know: copies of codes are counted with what they copy, and what is outside
    int8 is not rounded.
    """
    known = {t for t in statistics.peak if t in statistics.by_channel}
    return replace(
        place, tensors=tuple(t for t in place.tensors if t in known),
        parts=tuple(part for part in place.parts if part[0] in known),
    )  # fmt: skip


def apart(found: Sequence[Candidate]) -> list[Candidate]:
    """Those that scale no tensor that one before them scales: its channel scale was chosen for it as it is now."""
    chosen: list[Candidate] = []
    taken: set[int] = set()
    for candidate in found:
        if taken.isdisjoint(candidate.place.divided):
            chosen.append(candidate)
            taken.update(candidate.place.divided)
    return chosen


def _edit(candidate: Candidate) -> Edit:
    def apply(graph: Graph) -> Graph | None:
        try:
            return all_folds()[candidate.fold].apply(graph, candidate.place, candidate.r)
        except CannotScaleError:  # an earlier fold took its place
            return None

    return Edit(f"fold {candidate.fold} at {candidate.place.name}", apply)


def apply(problem: Problem, chosen: Sequence[Candidate]) -> tuple[Problem, tuple[FoldNote, ...]]:
    """Apply the candidates that still fit and change no output, in order; their products in the target's form."""
    layers = partial(as_layers, least=problem.latency.sizes.factor_layers)
    problem, (*done, _) = problem.edited([*map(_edit, chosen), Edit("factors of channels as layers", layers)])
    problem.graph.check()
    notes = (FoldNote(c.fold, c.place.name, c.gain) for c, made in zip(chosen, done, strict=True) if made)
    return problem, tuple(notes)
