"""Nodes of islands that compute the same twice for readers of the same island: the second goes.

A right operand has a copy of its own where it is int8, so that its range is its own
(:mod:`qhyvit.passes.own_right_operand`). Values of an island have no range.
"""

from __future__ import annotations

from dataclasses import replace

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.passes.shared.graph_pass import Pass, Phase


def _twin(graph: Graph, node: Node) -> int | None:
    """Another node's output with the same values, held in float as well; None: there is none."""
    for other in graph.users(node.inputs[0]):
        same = other.op == node.op and other.attrs == node.attrs and other.inputs == node.inputs
        if same and other is not node and other.in_island:
            return other.outputs[0]
    return None


def _in_order(graph: Graph, first: Node) -> Graph:
    """``first`` in front of all that reads what it writes."""
    earliest = min(graph.nodes.index(n) for n in graph.users(first.outputs[0]))
    if graph.nodes.index(first) < earliest:
        return graph
    others = [n for n in graph.nodes if n is not first]
    return replace(graph, nodes=(*others[:earliest], first, *others[earliest:]))


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for node in graph.nodes:
        current = graph.producer(node.outputs[0])
        if current is None or len(current.outputs) != 1 or not current.in_island:
            continue
        (out,) = current.outputs
        twin = _twin(graph, current) if graph.stays_inside(out) else None
        if twin is None:
            continue
        graph = edit.bypassed(graph, current, twin)
        kept = graph.producer(twin)
        assert kept is not None
        graph = _in_order(graph, kept)
    graph.check()
    return graph


PASS = Pass("equal_nodes", "no two nodes of islands compute the same", apply, phase=Phase.LOWERED)
