"""qhyvit: scale, granularity and scheme of every tensor by the Hessian-weighted error of the layer's own output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qhyvit import affine
from qhyvit.methods._hessian import weighted_histograms
from qhyvit.methods._observe import observe
from qhyvit.methods._problem import Method, Problem, Solution
from qhyvit.methods._ranges import finish, group_quant, minmax_weights, spread
from qhyvit.observers._histogram import Histogram, Row
from qhyvit.observers._search import Found, search
from qhyvit.plan import TensorQuant
from qhyvit.tflite.legal import Group, groups


def _best(group: Group, rows: list[Row]) -> tuple[Found, bool]:
    """Range and scheme with the least weighted error over all roots of a group; True for symmetric."""
    pin = 0.0 if group.low_at_zero else None
    joint = rows[0] if len(rows) == 1 else _merge(rows)
    symmetric = search(joint, affine.grid(), symmetric=True)
    if group.symmetric:
        return symmetric, True
    free = search(joint, affine.grid(), pin_low=pin)
    if group.low_at_zero or free.error < symmetric.error:
        return free, False
    return symmetric, True


def _merge(rows: list[Row]) -> Row:
    """Rows of several roots that share a scale, one after the other: errors add up."""
    import numpy as np

    order = np.argsort(np.concatenate([r.edges[:-1] for r in rows]), kind="stable")

    def joined(field: str) -> np.ndarray:
        return np.concatenate([getattr(r, field) for r in rows])[order]

    centre = np.concatenate([(r.edges[:-1] + r.edges[1:]) / 2 for r in rows])[order]
    edges = np.append(centre, centre[-1])
    return Row(joined("count"), joined("s0"), joined("s1"), joined("s2"), edges)


def _search_ranges(all_groups: list[Group], histograms: Mapping[int, Histogram], start: Mapping[Group, TensorQuant]) -> dict[Group, TensorQuant]:
    """One round: the best range of every group that carries gradients; the others stay."""
    chosen = dict(start)
    for group in all_groups:
        rows = [histograms[t].channels()[0] for t in group.roots if t in histograms and histograms[t].moments is not None]
        rows = [r for r in rows if r.s0.sum() > 0]
        if group.fixed is not None or not rows:
            continue
        found, symmetric = _best(group, rows)
        chosen[group] = group_quant(group, found.low, found.high, "hessian", found.error, symmetric=symmetric)
    return chosen


def find(problem: Problem, options: Mapping[str, Any]) -> Solution:
    """Min-max everywhere, then rounds of: gradients with everything quantized, search of every range."""
    graph, all_groups = problem.graph, groups(problem.graph)
    ranges = observe(problem, all_groups, "minmax")
    chosen = {g: group_quant(g, low, high, "minmax") for g, (low, high) in ranges.items()}
    wanted = [t for g in all_groups if g.fixed is None for t in g.roots if not graph.tensors[t].is_constant]
    weights = minmax_weights(graph)
    for number in range(int(options["rounds"])):
        quants = finish(graph, {**spread(graph, chosen), **weights})
        histograms, kl = weighted_histograms(problem, quants, wanted, f"round {number + 1}")
        chosen = _search_ranges(all_groups, histograms, chosen)
        print(number, kl)
    return Solution(graph, finish(graph, {**spread(graph, chosen), **weights}))


METHOD = Method("qhyvit", "Hessian-weighted search of scale, granularity and scheme", find, {"rounds": 2})
