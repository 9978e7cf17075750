"""Squares as products: SQUARED_DIFFERENCE(a, b) is MUL(d, d) of d = SUB(a, b), SQUARE(x) is MUL(x, x).

XNNPACK has no int8 kernel of the first, and nobody has one of the second.
"""

from __future__ import annotations

from qhyvit.graph.ir import Graph
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass


def apply(graph: Graph) -> Graph:
    """See above."""
    for node in graph.nodes:
        if node.op in ("SQUARED_DIFFERENCE", "SQUARE"):
            chain = Chain(graph, node)
            factor = node.inputs[0] if node.op == "SQUARE" else chain.add("SUB", *node.inputs)
            graph = chain.instead("MUL", factor, factor)
    return graph


PASS = Pass("squares", "no SQUARED_DIFFERENCE and no SQUARE", apply)
