"""Granularity: which tensors get one scale a channel through a fold, decided by the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from qhyvit import affine
from qhyvit.folds import all_folds
from qhyvit.folds._fold import Place
from qhyvit.folds._scaling import CannotScaleError
from qhyvit.graph.ir import Graph
from qhyvit.latency.profile import LatencyProfile, default_profile
from qhyvit.latency.work import Work
from qhyvit.methods._hessian import Statistics
from qhyvit.methods._problem import Problem
from qhyvit.observers._histogram import merge
from qhyvit.observers._search import Found, search
from qhyvit.ops._layer import layer_of
from qhyvit.plan import FoldNote
from qhyvit.sim.checked import Edit

# Full equalization, and the balance between activations and their readers' weights. A floor keeps channels of small
# values from taking the codes of all others: SiLU's negative side is -0.28 in each, and -0.28 / r where r is small.
POWERS_AND_FLOORS = ((1.0, 2.0**-10), (1.0, 2.0**-6), (1.0, 2.0**-4), (1.0, 2.0**-3), (0.5, 2.0**-10))
LEAST_GAIN = 0.002  # of the whole objective: below, a fold is not worth an edit
GAIN_PER_MS = 0.15  # what a millisecond must gain of it


@dataclass(frozen=True)
class Candidate:
    """One fold at one place, its channel scale [C] and what the objective loses by it (positive is good).

    ``ranges``: the best of each of the place's tensors once they are divided by r.
    """

    fold: str
    place: Place
    r: np.ndarray
    gain: float
    ranges: tuple[tuple[float, float], ...] = ()


def to_facts(candidate: Candidate) -> dict[str, Any]:
    """Plain data."""
    return {**asdict(candidate), "r": candidate.r.tolist()}


def from_facts(raw: Mapping[str, Any]) -> Candidate:
    """What :func:`to_facts` gave."""
    kept = raw["place"]
    works = {name: tuple(Work(**w) for w in kept[name]) for name in ("adds", "saves")}
    place = Place(**{**kept, "tensors": tuple(kept["tensors"]), **works})
    return Candidate(raw["fold"], place, np.array(raw["r"]), raw["gain"], tuple((a, b) for a, b in raw["ranges"]))


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


def _best(statistics: Statistics, tensor: int, r: np.ndarray, bits: int) -> Found:
    row = merge(statistics.by_channel[tensor].channels(), r)
    return search(row, affine.grid(bits))


def _scales(statistics: Statistics, place: Place, bits: int) -> list[np.ndarray]:
    """r from the true channel maxima of the tensor that the readers see: clipped outliers cost more than all else.

    On the grid of ``bits`` where the place weighs by it.
    """
    peak = statistics.peak[place.tensors[-1]].double().numpy()
    ratio = peak / max(float(peak.max()), 1e-12)
    tried = [np.maximum(ratio, floor) ** power for power, floor in POWERS_AND_FLOORS]
    if place.exact_power:
        top = affine.grid(bits).qmax
        codes = [np.rint(top * r**place.exact_power).clip(min=1) for r in tried]
        tried = [(c / top) ** (1 / place.exact_power) for c in codes]
    return list({r.tobytes(): r for r in tried}.values())


def _option(
    graph: Graph, name: str, place: Place, r: np.ndarray, statistics: Statistics, bits: int
) -> Candidate:
    """The fold with this scale; ``gain`` is minus the objective's part that it governs."""
    best = [_best(statistics, t, r, bits) for t in place.tensors]
    weights = sum(_readers_weight_error(graph, t, r, statistics, bits) for t in place.tensors)
    cost = sum(b.error for b in best) + weights
    return Candidate(name, place, r, -cost, tuple((b.low, b.high) for b in best))


def candidates(
    graph: Graph, places: Sequence[tuple[str, Place]], statistics: Statistics, total: float, bits: int = 8,
    latency: LatencyProfile | None = None,
) -> list[Candidate]:  # fmt: skip
    """The fold and scale with the largest gain at each place, largest first, those above the threshold.

    Args:
        latency: times of the ops that come in; None: the default.
    """
    found, latency = [], latency or default_profile()
    for name, place in places:
        # copies of codes are counted with what they copy, and what is outside int8 is not rounded
        counted = tuple(t for t in place.tensors if t in statistics.peak and t in statistics.by_channel)
        if not counted:
            continue
        place = replace(place, tensors=counted)
        options = [_option(graph, name, place, r, statistics, bits) for r in _scales(statistics, place, bits)]
        plain = _option(graph, name, place, np.ones(place.channels), statistics, bits)
        best = min(options, key=lambda o: -o.gain)
        gain = best.gain - plain.gain
        added, saved = (sum(latency.ms(work) or 0.0 for work in works) for works in (place.adds, place.saves))
        cost_ms = max(added - saved, 0.0)
        if gain > (LEAST_GAIN + GAIN_PER_MS * cost_ms) * total:
            found.append(replace(best, gain=gain))
    return apart(sorted(found, key=lambda c: -c.gain))


def apart(found: Sequence[Candidate]) -> list[Candidate]:
    """Those that scale no tensor that one before them scales: its channel scale was chosen for it as it is now."""
    chosen: list[Candidate] = []
    taken: set[int] = set()
    for candidate in found:
        if taken.isdisjoint(candidate.place.tensors):
            chosen.append(candidate)
            taken.update(candidate.place.tensors)
    return chosen


def _edit(candidate: Candidate) -> Edit:
    def apply(graph: Graph) -> Graph | None:
        try:
            return all_folds()[candidate.fold].apply(graph, candidate.place, candidate.r)
        except CannotScaleError:  # an earlier fold took its place
            return None

    return Edit(f"fold {candidate.fold} at {candidate.place.name}", apply)


def apply(problem: Problem, chosen: Sequence[Candidate]) -> tuple[Problem, tuple[FoldNote, ...]]:
    """Apply the candidates that still fit and change no output, in order."""
    problem, done = problem.edited([_edit(c) for c in chosen])
    problem.graph.check()
    notes = (FoldNote(c.fold, c.place.name, c.gain) for c, made in zip(chosen, done, strict=True) if made)
    return problem, tuple(notes)
