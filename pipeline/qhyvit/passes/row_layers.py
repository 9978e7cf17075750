"""A convolution whose kernel is as wide as its map, and one row high, is a RESHAPE and a FULLY_CONNECTED.

[N, H, W, C] with a kernel of 1 x W gives [N, H, 1, O]: each row of W * C numbers is a token. A scale for each of these
numbers fits into a linear's weights; a convolution knows C of them.
"""

from __future__ import annotations

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass


def _reads_rows(graph: Graph, node: Node) -> bool:
    if node.op != "CONV_2D":
        return False
    source, weight, out = (graph.tensors[t] for t in (*node.inputs[:2], node.outputs[0]))
    whole = weight.shape[1:] == (1, *source.shape[2:]) and source.shape[2] > 1
    whole = whole and node.attrs.dilation_w_factor == 1
    return weight.is_constant and whole and out.shape[:3] == (*source.shape[:2], 1)


def _as_linear(graph: Graph, node: Node) -> Graph:
    (read, weight, *bias), chain = node.inputs, Chain(graph, node)
    lines, height, width, channels = graph.tensors[read].shape
    rows = chain.reshape(read, lines, height, 1, width * channels)
    flat = chain.constant(graph.constant(weight).reshape(graph.tensors[weight].shape[0], -1))
    fused = node.attrs.fused_activation_function
    return chain.instead("FULLY_CONNECTED", rows, flat, *bias, fused_activation_function=fused, keep_num_dims=True)


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same products."""
    for node in graph.nodes:
        if _reads_rows(graph, node):
            graph = _as_linear(graph, node)
    return graph


PASS = Pass("row_layers", "convolutions over whole rows are linears", apply)
