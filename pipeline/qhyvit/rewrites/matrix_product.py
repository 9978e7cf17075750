"""A product of two activations is a BATCH_MATMUL, though the converter writes some as FULLY_CONNECTED.

A FULLY_CONNECTED op's second operand is taken for weights, which have a scale a channel, rounded before the file is
written; an activation has neither. A constant bias is added behind: products have none.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops._elementwise import ElementwiseAttrs
from qhyvit.ops.batch_matmul import BatchMatMulAttrs
from qhyvit.rewrites._rewrite import Rewrite


def _is_product(graph: Graph, node: Node) -> bool:
    if node.op != "FULLY_CONNECTED" or graph.tensors[node.inputs[1]].is_constant:
        return False
    known = all(t < 0 or graph.tensors[t].is_constant for t in node.inputs[2:])
    plain = node.attrs.fused_activation_function == "NONE" and known
    shapes = graph.tensors[node.inputs[0]].shape, graph.tensors[node.outputs[0]].shape
    return plain and len(shapes[0]) >= 2 and shapes[0][:-1] == shapes[1][:-1]


def _with_bias(graph: Graph, product: Node, bias: int) -> Graph:
    """ADD of the bias behind the product, which gets an output of its own."""
    out = graph.tensors[product.outputs[0]]
    graph, plain = edit.add_tensor(graph, f"{out.name}.product", out.shape, out.dtype)
    shape = (*(1,) * (len(out.shape) - 1), out.shape[-1])
    data = np.ascontiguousarray(graph.constant(bias).reshape(shape))
    graph, term = edit.add_tensor(graph, f"{out.name}:term", shape, out.dtype, data)
    add = Node("ADD", ElementwiseAttrs(), (plain, term), (out.id,), product.block)
    return edit.insert_before(edit.replace_node(graph, product, add), add, replace(product, outputs=(plain,)))


def apply(graph: Graph) -> Graph:
    """x [.., M, K] and w [N, K] -> x w^T, the same sum."""
    for node in graph.nodes:
        if _is_product(graph, node):
            product = replace(node, op="BATCH_MATMUL", attrs=BatchMatMulAttrs(adj_y=True), inputs=node.inputs[:2])
            graph = edit.replace_node(graph, node, product)
            for bias in node.inputs[2:]:
                if bias >= 0:
                    graph = _with_bias(graph, product, bias)
    return graph


# before the rewrite that gives every FULLY_CONNECTED a bias
REWRITE = Rewrite("matrix_product", "products of two activations are BATCH_MATMUL", apply, order=-2)
