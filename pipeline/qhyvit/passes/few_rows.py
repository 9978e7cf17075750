"""Products of a few rows with many are computed the other way round: (many @ few^T)^T instead of few @ many^T.

A kernel packs its right operand anew at every inference, here thousands of rows, before six rows meet them; the other
way it packs the six. The result that has to be transposed has as few columns.
"""

from __future__ import annotations

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass

FEW, MANY = 16, 128


def _is_wanted(graph: Graph, node: Node) -> bool:
    if node.op != "BATCH_MATMUL" or node.attrs.adj_x or not node.attrs.adj_y:
        return False
    left, right = (graph.tensors[t] for t in node.inputs)
    dynamic = not (left.is_constant or right.is_constant)
    return dynamic and len(left.shape) == len(right.shape) == 2 and left.shape[0] <= FEW and right.shape[0] >= MANY


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same products."""
    for node in graph.nodes:
        if _is_wanted(graph, node):
            chain = Chain(graph, node)
            turned = chain.add("BATCH_MATMUL", *node.inputs[::-1], **vars(node.attrs))
            graph = chain.instead("TRANSPOSE", turned, chain.constant([1, 0]))
    return graph


PASS = Pass("few_rows", "products of few rows with many pack the few", apply, after=("matrix_product",))
