"""Quotients become products: int8 DIV is wrong in LiteRT (see ops/div.py), products and RSQRT are right.

x / c, c constant, is x * (1 / c). x / max(sqrt(s), c), torch's normalize, is x * rsqrt(s + c^2), and |y| * |y| in s is
y * y: equal but where the norm is of the size of c, 1e-12.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops._elementwise import ElementwiseAttrs
from qhyvit.rewrites._rewrite import Rewrite

# of the square of a norm; a smaller constant would be lost in float32 and have no grid
LEAST_EPS = 1e-12
LARGEST_FLOOR = 1e-4  # of a norm; above, it is no guard against zero, but a value


def _by_constant(graph: Graph, node: Node) -> Graph:
    divisor = graph.tensors[node.inputs[1]]
    inverse = (1.0 / graph.constant(divisor.id).astype(np.float64)).astype(np.float32)
    graph, factor = edit.add_tensor(graph, f"{divisor.name}.inverse", divisor.shape, "FLOAT32", inverse)
    return edit.replace_node(graph, node, replace(node, op="MUL", inputs=(node.inputs[0], factor)))


def _norm(graph: Graph, tensor: int) -> tuple[Node, Node, float] | None:
    """The MAXIMUM and the SQRT that give ``tensor``, alone or through one RESHAPE, and the floor between them."""
    node = graph.producer(tensor)
    if node is not None and node.op == "RESHAPE":
        node = graph.producer(node.inputs[0])
    if node is None or node.op != "MAXIMUM" or not graph.tensors[node.inputs[1]].is_constant:
        return None
    root, floor = graph.producer(node.inputs[0]), graph.constant(node.inputs[1])
    is_floor = floor.size == 1 and 0 <= float(floor.max()) <= LARGEST_FLOOR
    one_reader = len(graph.users(node.outputs[0])) == 1
    if root is None or root.op != "SQRT" or not is_floor or not one_reader or len(graph.users(root.outputs[0])) > 1:
        return None
    return node, root, float(floor.max())


def _by_norm(graph: Graph, node: Node) -> Graph:
    """DIV(x, [RESHAPE] MAXIMUM(SQRT(s), c)) -> MUL(x, [RESHAPE] RSQRT(ADD(s, c^2))), in the same places."""
    found = _norm(graph, node.inputs[1])
    if found is None:
        return graph
    maximum, root, floor = found
    eps = np.array(max(floor * floor, LEAST_EPS), np.float32)
    graph, constant = edit.add_tensor(graph, f"{graph.tensors[root.outputs[0]].name}.eps", (), "FLOAT32", eps)
    total = replace(root, op="ADD", attrs=ElementwiseAttrs(), inputs=(root.inputs[0], constant))
    inverse = replace(maximum, op="RSQRT", attrs=type(root.attrs)(), inputs=(root.outputs[0],))
    graph = edit.replace_node(edit.replace_node(graph, root, total), maximum, inverse)
    return edit.replace_node(graph, node, replace(node, op="MUL"))


def _is_square_of_abs(graph: Graph, node: Node) -> bool:
    producer = graph.producer(node.inputs[0]) if node.op == "MUL" else None
    return producer is not None and node.inputs[0] == node.inputs[1] and producer.op == "ABS"


def apply(graph: Graph) -> Graph:
    """See above."""
    for node in graph.nodes:
        if node.op == "DIV" and graph.tensors[node.inputs[1]].is_constant:
            graph = _by_constant(graph, node)
        elif node.op == "DIV":
            graph = _by_norm(graph, node)
        elif _is_square_of_abs(graph, node):
            absolute = graph.producer(node.inputs[0])
            assert absolute is not None
            graph = edit.replace_node(graph, node, replace(node, inputs=(absolute.inputs[0],) * 2))
            if not graph.users(absolute.outputs[0]):
                graph = edit.remove_node(graph, absolute)
    return graph


REWRITE = Rewrite("quotients", "no DIV by a constant or a norm", apply, order=-1)
