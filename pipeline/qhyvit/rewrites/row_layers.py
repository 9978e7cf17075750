"""A convolution whose kernel is as wide as its map, and one row high, is a RESHAPE and a FULLY_CONNECTED.

[N, H, W, C] with a kernel of 1 x W gives [N, H, 1, O]: each row of W * C numbers is a token. A scale for each of these
numbers fits into a linear's weights; a convolution knows C of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.fully_connected import FullyConnectedAttrs
from qhyvit.ops.reshape import ReshapeAttrs
from qhyvit.rewrites._rewrite import Rewrite


def _reads_rows(graph: Graph, node: Node) -> bool:
    if node.op != "CONV_2D":
        return False
    source, weight, out = (graph.tensors[t] for t in (*node.inputs[:2], node.outputs[0]))
    whole = weight.shape[1:] == (1, *source.shape[2:]) and source.shape[2] > 1
    whole = whole and node.attrs.dilation_w_factor == 1
    return weight.is_constant and whole and out.shape[:3] == (*source.shape[:2], 1)


def _as_linear(graph: Graph, node: Node) -> Graph:
    source, weight = (graph.tensors[t] for t in node.inputs[:2])
    shape = (*source.shape[:2], 1, source.shape[2] * source.shape[3])
    target = np.array(shape, np.int32)
    graph, target_id = edit.add_tensor(graph, f"{source.name}.rows:shape", target.shape, "INT32", target)
    graph, rows = edit.add_tensor(graph, f"{source.name}.rows", shape, source.dtype)
    flat = np.ascontiguousarray(graph.constant(weight.id).reshape(weight.shape[0], -1))
    graph, flat_id = edit.add_tensor(graph, f"{weight.name}.rows", flat.shape, weight.dtype, flat)
    before = Node("RESHAPE", ReshapeAttrs(shape), (source.id, target_id), (rows,), node.block)
    attrs = FullyConnectedAttrs(node.attrs.fused_activation_function, keep_num_dims=True)
    linear = replace(node, op="FULLY_CONNECTED", attrs=attrs, inputs=(rows, flat_id, *node.inputs[2:]))
    return edit.insert_before(edit.replace_node(graph, node, linear), linear, before)


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same products."""
    for node in graph.nodes:
        if _reads_rows(graph, node):
            graph = _as_linear(graph, node)
    return graph


REWRITE = Rewrite("row_layers", "convolutions over whole rows are linears", apply, order=-3)
