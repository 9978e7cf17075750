"""A product of two activations is a BATCH_MATMUL, though the converter writes some as FULLY_CONNECTED.

A FULLY_CONNECTED op's second operand is taken for weights, which have a scale a channel, rounded before the file is
written; an activation has neither.
"""

from __future__ import annotations

from dataclasses import replace

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.batch_matmul import BatchMatMulAttrs
from qhyvit.rewrites._rewrite import Rewrite


def _is_product(graph: Graph, node: Node) -> bool:
    if node.op != "FULLY_CONNECTED" or graph.tensors[node.inputs[1]].is_constant:
        return False
    plain = node.attrs.fused_activation_function == "NONE" and all(t < 0 for t in node.inputs[2:])
    shapes = graph.tensors[node.inputs[0]].shape, graph.tensors[node.outputs[0]].shape
    return plain and len(shapes[0]) >= 2 and shapes[0][:-1] == shapes[1][:-1]


def apply(graph: Graph) -> Graph:
    """x [.., M, K] and w [N, K] -> x w^T, the same sum."""
    for node in graph.nodes:
        if _is_product(graph, node):
            product = replace(node, op="BATCH_MATMUL", attrs=BatchMatMulAttrs(adj_y=True), inputs=node.inputs[:2])
            graph = edit.replace_node(graph, node, product)
    return graph


# before the rewrite that gives every FULLY_CONNECTED a bias
REWRITE = Rewrite("matrix_product", "products of two activations are BATCH_MATMUL", apply, order=-2)
