"""Products of a few rows with many are computed the other way round: (many @ few^T)^T instead of few @ many^T.

A kernel packs its right operand anew at every inference, here thousands of rows, before six rows meet them; the other
way it packs the six. The result that has to be transposed has as few columns.
"""

from __future__ import annotations

from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.profile import SIZES, Sizes
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass


def _is_wanted(graph: Graph, node: Node, sizes: Sizes) -> bool:
    if node.op != "BATCH_MATMUL" or node.attrs.adj_x or not node.attrs.adj_y:
        return False
    left, right = (graph.tensors[t] for t in node.inputs)
    dynamic = not (left.is_constant or right.is_constant)
    of_rows = len(left.shape) == len(right.shape) == 2
    return dynamic and of_rows and left.shape[0] <= sizes.few_rows and right.shape[0] >= sizes.many_rows


def apply(graph: Graph, sizes: Sizes = SIZES) -> Graph:
    """Value-preserving: the same products."""
    for node in graph.nodes:
        if _is_wanted(graph, node, sizes):
            chain = Chain(graph, node)
            turned = chain.add("BATCH_MATMUL", *node.inputs[::-1], **vars(node.attrs))
            graph = chain.instead("TRANSPOSE", turned, chain.constant([1, 0]))
    return graph


PASS = Pass("few_rows", "products of few rows with many pack the few", apply, after=("matrix_product",), sized=apply)
