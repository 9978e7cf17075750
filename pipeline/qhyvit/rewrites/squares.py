"""Squares as products: SQUARED_DIFFERENCE(a, b) is MUL(d, d) of d = SUB(a, b), SQUARE(x) is MUL(x, x).

XNNPACK has no int8 kernel of the first, and nobody has one of the second.
"""

from __future__ import annotations

from dataclasses import replace

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops._elementwise import ElementwiseAttrs
from qhyvit.rewrites._rewrite import Rewrite


def _difference(graph: Graph, node: Node) -> Graph:
    out = graph.tensors[node.outputs[0]]
    graph, d = edit.add_tensor(graph, f"{out.name}.difference", out.shape, out.dtype)
    graph = edit.insert_before(graph, node, Node("SUB", ElementwiseAttrs(), node.inputs, (d,), node.block))
    return edit.replace_node(graph, node, replace(node, op="MUL", attrs=ElementwiseAttrs(), inputs=(d, d)))


def apply(graph: Graph) -> Graph:
    """See above."""
    for node in graph.nodes:
        if node.op == "SQUARED_DIFFERENCE":
            graph = _difference(graph, node)
        elif node.op == "SQUARE":
            square = replace(node, op="MUL", attrs=ElementwiseAttrs(), inputs=node.inputs * 2)
            graph = edit.replace_node(graph, node, square)
    return graph


REWRITE = Rewrite("squares", "no SQUARED_DIFFERENCE and no SQUARE", apply, order=-1)
