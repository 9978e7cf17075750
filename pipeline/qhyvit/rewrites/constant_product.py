"""A product whose left operand is constant is a layer: w x^T = (x w^T)^T.

A layer's weights have a scale a channel, and are packed before the first inference; a product's operands have neither.
"""

from __future__ import annotations

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops._spec import NoAttrs
from qhyvit.ops.fully_connected import FullyConnectedAttrs
from qhyvit.ops.reshape import ReshapeAttrs
from qhyvit.rewrites._rewrite import Rewrite


def _is_layer(graph: Graph, node: Node) -> bool:
    if node.op != "BATCH_MATMUL" or node.attrs.adj_x or not node.attrs.adj_y:
        return False
    left, right = (graph.tensors[t] for t in node.inputs)
    return left.is_constant and len(left.shape) == 2 and not right.is_constant


def _as_layer(graph: Graph, node: Node) -> Graph:
    """[M, K] x [.., N, K]^T -> [.., N, M] -> [.., M, N]."""
    weight, right, out = (graph.tensors[t] for t in (*node.inputs, node.outputs[0]))
    graph, turned = edit.add_tensor(graph, f"{out.name}.turned", (*right.shape[:-1], weight.shape[0]), out.dtype)
    attrs = FullyConnectedAttrs(keep_num_dims=True)
    layer = Node("FULLY_CONNECTED", attrs, (right.id, weight.id), (turned,), node.block)
    rank = len(out.shape)
    is_row = weight.shape[0] == 1  # swapping the last two axes leaves it where it lies
    how = np.array(out.shape if is_row else [*range(rank - 2), rank - 1, rank - 2], np.int32)
    graph, how_id = edit.add_tensor(graph, f"{out.name}.turned:in1", how.shape, "INT32", how)
    op, options = ("RESHAPE", ReshapeAttrs(out.shape)) if is_row else ("TRANSPOSE", NoAttrs())
    back = Node(op, options, (turned, how_id), node.outputs, node.block)
    return edit.insert_before(edit.replace_node(graph, node, back), back, layer)


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same products."""
    for node in graph.nodes:
        if _is_layer(graph, node):
            graph = _as_layer(graph, node)
    return graph


REWRITE = Rewrite("constant_product", "products with a constant on the left are layers", apply, order=-3)
