"""Graphs of a builder, and plans for them written by hand."""

from __future__ import annotations

from qhyvit.graph.ir import Graph
from qhyvit.lowering.contracts import groups, weights
from qhyvit.plan import QuantPlan, TensorQuant
from tests._graphs import Builder


def graph_of(b: Builder, *outputs: int) -> Graph:
    graph = Graph({t.id: t for t in b.tensors}, tuple(b.nodes), (b.input,), outputs)
    graph.check()
    return graph


def plan_of(graph: Graph, **changed: TensorQuant) -> QuantPlan:
    """A scale for every group, powers of two, that its readers take; ``changed`` by the beginning of a name."""
    tensors = {}
    for i, group in enumerate(groups(graph)):
        scale, zero = group.fixed or (2.0 ** -(i % 4 + 3), -128 if group.low_at_zero else 0 if group.symmetric else 5)
        low = -127 if group.symmetric and not group.fixed else None
        for t in group.members:
            tensors[graph.tensors[t].name] = TensorQuant((scale,), (zero,), low=low)
    for _, weight, axis in weights(graph):
        steps = tuple(0.01 * (k + 1) for k in range(weight.shape[axis]))
        tensors[weight.name] = TensorQuant(steps, (0,) * len(steps), axis=axis)
    for start, quant in changed.items():
        names = [n for n in tensors if n.startswith(start)]
        assert names
        tensors |= dict.fromkeys(names, quant)
    return QuantPlan(tensors, "by hand")
