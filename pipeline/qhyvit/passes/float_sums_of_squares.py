"""Sums of squares in float islands as MUL and SUM.

In int8 a row's product with itself keeps the sum in the 32-bit accumulator. In float nothing is won by it, and XNNPACK
first packs the right operand for sixteen columns, of which one is used.
"""

from __future__ import annotations

from qhyvit.graph.ir import FLOAT, Graph, Node
from qhyvit.latency.work import is_sum_of_squares
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass, Phase


def _added(graph: Graph, node: Node) -> Graph:
    row, chain = node.inputs[0], Chain(graph, node, alike=True)
    axis = len(graph.tensors[row].shape) - 1
    return chain.instead("SUM", chain.add("MUL", row, row), chain.constant([axis]), keep_dims=True)


def apply(graph: Graph) -> Graph:
    """Value-preserving. int16 kernels add squares up in 64 bits and are left as they are."""
    for node in graph.nodes:
        if node.writes == FLOAT and is_sum_of_squares(graph, node):
            graph = _added(graph, node)
    return graph


PASS = Pass("float_sums_of_squares", "sums of squares in float are MUL and SUM", apply, phase=Phase.LOWERED)
