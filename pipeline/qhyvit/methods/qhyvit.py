"""qhyvit: scale, granularity and scheme of every tensor by the Hessian-weighted error of the layer's own output.

Rounds of: gradients of KL(float || quantized) with everything quantized, then for every group of tensors that
share a scale the range and scheme with the least sum of g^2 (x - Q(x))^2. After the first round the same objective
decides which tensors get a scale a channel, through folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qhyvit import affine
from qhyvit.graph.ir import Graph
from qhyvit.methods import _folding
from qhyvit.methods._hessian import Statistics, gather
from qhyvit.methods._observe import observe
from qhyvit.methods._problem import Method, Problem, Solution
from qhyvit.methods._ranges import finish, group_quant, minmax_weights, spread
from qhyvit.methods._reconstruct import reconstruct
from qhyvit.methods._weights import search_weights
from qhyvit.observers._histogram import merge
from qhyvit.observers._search import Found, search
from qhyvit.plan import FoldNote, TensorQuant
from qhyvit.tflite.legal import Group, groups

Chosen = dict[Group, TensorQuant]


def _best(group: Group, statistics: Statistics) -> tuple[Found, bool] | None:
    """Range and scheme with the least weighted error over all roots; True for symmetric; None without gradients."""
    seen = [t for t in group.roots if t in statistics.peak]
    rows = [row for t in seen for row in statistics.histograms[t].channels() if row.s0.sum() > 0]
    if group.fixed is not None or not rows:
        return None
    row = rows[0] if len(rows) == 1 else merge(rows, np.ones(len(rows)))
    symmetric = search(row, affine.grid(), symmetric=True)
    if group.symmetric:
        return symmetric, True
    free = search(row, affine.grid(), pin_low=0.0 if group.low_at_zero else None)
    return (symmetric, True) if symmetric.error < free.error and not group.low_at_zero else (free, False)


def _search_ranges(all_groups: Sequence[Group], statistics: Statistics, start: Chosen) -> tuple[Chosen, float]:
    """One round: the best range of every group that carries gradients; the objective of the whole."""
    chosen, total = dict(start), 0.0
    for group in all_groups:
        best = _best(group, statistics)
        if best is not None:
            found, symmetric = best
            total += found.error
            chosen[group] = group_quant(group, found.low, found.high, "hessian", found.error, symmetric=symmetric)
    return chosen, total


def _start(problem: Problem, keep: Mapping[str, TensorQuant] | None = None) -> Chosen:
    """Min-max ranges, or what ``keep`` holds for tensors that are as they were."""
    all_groups = groups(problem.graph)
    chosen = {}
    for group, (low, high) in observe(problem, all_groups, "minmax").items():
        known = (keep or {}).get(problem.graph.tensors[group.members[0]].name)
        chosen[group] = known or group_quant(group, low, high, "minmax")
    return chosen


def _wanted(graph: Graph, chosen: Chosen) -> list[int]:
    """Tensors whose rounding the objective counts."""
    return [t for g in chosen if g.fixed is None for t in g.roots if not graph.tensors[t].is_constant]


def _unchanged(before: Graph, after: Graph, quants: Mapping[str, TensorQuant]) -> dict[str, TensorQuant]:
    """Quantizations of activations whose values the folds did not change: their producers' constants are the same."""
    changed = {t for t in after.tensors if t in before.tensors and after.tensors[t].data is not before.tensors[t].data}
    touched: set[int] = set()
    for node in after.nodes:  # a changed constant divides its node's output, or undoes a division of its input
        if any(i in changed for i in node.inputs):
            touched |= {*node.outputs, *(i for i in node.inputs if i >= 0)}
        elif any(i in touched for i in node.inputs):
            touched |= set(node.outputs)
    return {t.name: quants[t.name] for t in after.tensors.values() if t.id not in touched and t.name in quants}


def find(problem: Problem, options: Mapping[str, Any]) -> Solution:
    """Min-max everywhere, a round of ranges, folds by the objective, then the remaining rounds."""
    notes: tuple[FoldNote, ...] = ()
    chosen, weights = _start(problem), minmax_weights(problem.graph)
    rounds = int(options["rounds"])
    for number in range(rounds):
        graph = problem.graph
        folding = number == 1 and bool(options["folds"])
        places = _folding.all_places(graph) if folding else []
        by_channel = {t for _, place in places for t in place.tensors}
        quants = finish(graph, {**spread(graph, chosen), **weights})
        statistics = gather(problem, quants, _wanted(graph, chosen), by_channel, f"round {number + 1} of {rounds}")
        chosen, total = _search_ranges(list(chosen), statistics, chosen)
        problem.log(f"round {number + 1}: KL before {statistics.kl:.4f}, objective {total:.4g}")
        if folding:
            candidates = _folding.candidates(graph, places, statistics, total)
            folded, notes = _folding.apply(graph, candidates)
            keep = _unchanged(graph, folded, spread(graph, chosen))
            problem = problem.on(folded)
            chosen = _start(problem, keep)
            for note in notes:
                problem.log(f"fold {note.fold} at {note.place}: objective -{note.gain / total:.1%}")
        energies = {t: e.double().numpy() for t, e in statistics.energy.items()}
        weights = search_weights(problem.graph, {} if folding else energies)
    graph = problem.graph
    quants = finish(graph, {**spread(graph, chosen), **weights})
    if not (options["ridge"] or options["rounding"] or options["bias"]):
        return Solution(graph, quants, notes)
    constants, quants = reconstruct(problem, quants, options)
    return Solution(graph, quants, notes, constants)


DEFAULTS = {"rounds": 4, "folds": True, "ridge": 1.0, "rounding": True, "bias": True}
METHOD = Method(
    "qhyvit", "Hessian-weighted search of scale, granularity and scheme; closed-form weights", find, DEFAULTS
)
