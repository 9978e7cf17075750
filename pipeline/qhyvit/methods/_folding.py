"""Granularity: which tensors get one scale a channel through a fold, decided by the objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qhyvit import affine
from qhyvit.folds import all_folds
from qhyvit.folds._fold import Place
from qhyvit.folds._scaling import CannotScaleError
from qhyvit.graph.ir import Graph
from qhyvit.methods._hessian import Statistics
from qhyvit.observers._histogram import merge
from qhyvit.observers._search import search
from qhyvit.ops import spec
from qhyvit.plan import FoldNote

POWERS = (1.0, 0.5)  # full equalization, and the balance between activations and their readers' weights
SMALLEST_RATIO = 2.0**-10
LEAST_GAIN = 0.002  # of the whole objective: below, a fold is not worth an op


@dataclass(frozen=True)
class Candidate:
    """One fold at one place, its channel scale [C] and what the objective loses by it (positive is good)."""

    fold: str
    place: Place
    r: np.ndarray
    gain: float


def to_facts(candidate: Candidate) -> dict[str, Any]:
    """Plain data."""
    return {**asdict(candidate), "r": candidate.r.tolist()}


def from_facts(raw: Mapping[str, Any]) -> Candidate:
    """What :func:`to_facts` gave."""
    place = Place(raw["place"]["name"], tuple(raw["place"]["tensors"]), raw["place"]["channels"])
    return Candidate(raw["fold"], place, np.array(raw["r"]), raw["gain"])


def all_places(graph: Graph) -> list[tuple[str, Place]]:
    """Every place of every fold."""
    return [(name, place) for name, fold in all_folds().items() for place in fold.places(graph)]


def _readers_weight_error(graph: Graph, tensor: int, r: np.ndarray, statistics: Statistics, bits: int) -> float:
    """Weighted error that rounding the readers' weights makes, with their input channels multiplied by r.

    Per output channel o: sum(g_o^2) * s_o^2 / 12 * sum_c E[x_c^2] / r_c^2, s_o = max_c |W_oc r_c| / 127.
    """
    total, energy = 0.0, statistics.energy[tensor].double().numpy() / r**2
    for node in graph.users(tensor):
        op = spec(node.op)
        out = node.outputs[0]
        if op.weight_input < 0 or node.op == "DEPTHWISE_CONV_2D" or out not in statistics.weight:
            continue  # a depthwise reader has a scale for each channel anyway
        w = np.abs(graph.constant(node.inputs[op.weight_input]).astype(np.float64)) * r
        taps = w[0].size // w.shape[-1]
        step = w.reshape(len(w), -1).max(axis=1) / affine.grid(bits).qmax
        total += float((statistics.weight[out].double().numpy() * step**2).sum() / 12 * energy.sum() * taps)
    return total


def _error(statistics: Statistics, tensor: int, r: np.ndarray, bits: int) -> float:
    row = merge(statistics.by_channel[tensor].channels(), r)
    return search(row, affine.grid(bits)).error


def _scale(statistics: Statistics, place: Place, power: float) -> np.ndarray:
    """r from the true channel maxima of the tensor that the readers see: clipped outliers cost more than all else."""
    peak = statistics.peak[place.tensors[-1]].double().numpy()
    return np.maximum(peak / max(float(peak.max()), 1e-12), SMALLEST_RATIO) ** power


def candidates(
    graph: Graph, places: Sequence[tuple[str, Place]], statistics: Statistics, total: float, bits: int = 8
) -> list[Candidate]:
    """The fold and scale with the largest gain at each place, largest first, those above the threshold."""
    found = []
    for name, place in places:
        if any(t not in statistics.peak for t in place.tensors):
            continue
        ones = np.ones(place.channels)
        reader = place.tensors[-1]

        def cost(r: np.ndarray, place: Place = place, reader: int = reader) -> float:
            own = sum(_error(statistics, t, r, bits) for t in place.tensors)
            return own + _readers_weight_error(graph, reader, r, statistics, bits)

        plain = cost(ones)
        options = [(plain - cost(r), r) for r in (_scale(statistics, place, p) for p in POWERS)]
        gain, r = max(options, key=lambda o: o[0])
        if gain > LEAST_GAIN * total:
            found.append(Candidate(name, place, r, gain))
    return sorted(found, key=lambda c: -c.gain)


def apply(graph: Graph, chosen: Sequence[Candidate]) -> tuple[Graph, tuple[FoldNote, ...]]:
    """Apply the candidates that still fit, in order."""
    notes = []
    for candidate in chosen:
        try:
            graph = all_folds()[candidate.fold].apply(graph, candidate.place, candidate.r)
        except CannotScaleError:
            continue
        notes.append(FoldNote(candidate.fold, candidate.place.name, candidate.gain))
    graph.check()
    return graph, tuple(notes)
