"""A product whose left operand is constant is a layer: w x^T = (x w^T)^T.

A layer's weights have a scale a channel, and are packed before the first inference; a product's operands have neither.
"""

from __future__ import annotations

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain, swap
from qhyvit.passes.shared.graph_pass import Pass


def _is_layer(graph: Graph, node: Node) -> bool:
    if node.op != "BATCH_MATMUL" or node.attrs.adj_x or not node.attrs.adj_y:
        return False
    left, right = (graph.tensors[t] for t in node.inputs)
    return left.is_constant and len(left.shape) == 2 and not right.is_constant


def _as_layer(graph: Graph, node: Node) -> Graph:
    """[M, K] x [.., N, K]^T -> [.., N, M] -> [.., M, N]."""
    (weight, right), out, chain = node.inputs, graph.tensors[node.outputs[0]].shape, Chain(graph, node)
    turned = chain.add("FULLY_CONNECTED", right, weight, keep_num_dims=True)
    if graph.tensors[weight].shape[0] == 1:  # swapping the last two axes leaves it where it lies
        return chain.instead("RESHAPE", turned, chain.constant(out), new_shape=out)
    return chain.instead("TRANSPOSE", turned, chain.constant(swap(len(out))))


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same products."""
    for node in graph.nodes:
        if _is_layer(graph, node):
            graph = _as_layer(graph, node)
    return graph


PASS = Pass("constant_product", "products with a constant on the left are layers", apply)
