"""A product of two activations is a BATCH_MATMUL, though the converter writes some as FULLY_CONNECTED.

A FULLY_CONNECTED op's second operand is taken for weights, which have a scale a channel, rounded before the file is
written; an activation has neither. A constant bias is added behind: products have none.
"""

from __future__ import annotations

import numpy as np

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass


def _is_product(graph: Graph, node: Node) -> bool:
    if node.op != "FULLY_CONNECTED" or graph.tensors[node.inputs[1]].is_constant:
        return False
    known = all(t < 0 or graph.tensors[t].is_constant for t in node.inputs[2:])
    left, right = (graph.tensors[t].shape for t in node.inputs[:2])
    return known and len(left) >= 2 and left[-1] == right[-1]


def _made(graph: Graph, node: Node) -> Graph:
    """The product, the sum with a bias or a fused activation, and a RESHAPE where leading axes are joined."""
    chain, fused = Chain(graph, node), node.attrs.fused_activation_function
    total = chain.add("BATCH_MATMUL", *node.inputs[:2], adj_y=True)
    bias = [t for t in node.inputs[2:] if t >= 0]
    if bias or fused != "NONE":
        values = graph.constant(bias[0]) if bias else np.zeros(1, np.float32)
        term = chain.constant(values.reshape((1,) * (len(graph.tensors[node.inputs[0]].shape) - 1) + (-1,)))
        total = chain.add("ADD", total, term, fused_activation_function=fused)
    return chain.replaced_by(total)


def apply(graph: Graph) -> Graph:
    """x [.., M, K] and w [N, K] -> x w^T, the same sum."""
    for node in graph.nodes:
        if _is_product(graph, node):
            graph = _made(graph, node)
    return graph


PASS = Pass("matrix_product", "products of two activations are BATCH_MATMUL", apply)
