"""PReLU and leaky ReLU are x + relu((alpha - 1) x), where no alpha is above 1: MUL with a fused RELU, and ADD.

The converter writes PReLU as relu(x) - alpha * relu(-x), whose RELU alone XNNPACK has not in int8; TFLite's int8 PRELU
is far slower than MUL and ADD, and XNNPACK's int8 LEAKY_RELU rounds its slope, alpha times the ratio of the scales, to
a multiple of 1/256. With an alpha above 1 it is a PRELU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops._elementwise import ElementwiseAttrs
from qhyvit.ops._spec import FusedActivation, NoAttrs
from qhyvit.rewrites._rewrite import Rewrite

NONE, RELU = FusedActivation.NONE, FusedActivation.RELU


def _rectified(graph: Graph, tensor: int) -> int | None:
    """x where ``tensor`` is relu(x)."""
    node = graph.producer(tensor)
    return node.inputs[0] if node is not None and node.op == "RELU" else None


def _times(graph: Graph, tensor: int, fused: str) -> tuple[int, NDArray[Any]] | None:
    """x and c where ``tensor`` is x * c, c constant, with a fused activation."""
    node = graph.producer(tensor)
    if node is None or node.op != "MUL" or node.attrs.fused_activation_function != fused:
        return None
    for x, c in (node.inputs, node.inputs[::-1]):
        if graph.tensors[c].is_constant:
            return x, graph.constant(c)
    return None


def _negative_part(graph: Graph, tensor: int) -> int | None:
    """x where ``tensor`` is relu(-x)."""
    negated = _times(graph, tensor, RELU)
    if negated is not None:
        return negated[0] if np.all(negated[1] == -1) else None
    inside = _rectified(graph, tensor)
    node = None if inside is None else graph.producer(inside)
    return node.inputs[0] if node is not None and node.op == "NEG" else None


def _slopes(graph: Graph, node: Node) -> tuple[int, NDArray[Any]] | None:
    """x and alpha of a node that gives x where it is positive and alpha * x elsewhere."""
    if node.op == "LEAKY_RELU":
        return node.inputs[0], np.array(node.attrs.alpha, np.float32)
    if node.op == "PRELU" and graph.tensors[node.inputs[1]].is_constant:
        return node.inputs[0], graph.constant(node.inputs[1])
    if node.op != "SUB" or node.attrs.fused_activation_function != NONE:
        return None
    x, lower = _rectified(graph, node.inputs[0]), _times(graph, node.inputs[1], NONE)
    if x is None or lower is None or _negative_part(graph, lower[0]) != x:
        return None
    same = graph.tensors[x].shape == graph.tensors[node.outputs[0]].shape
    return (x, lower[1]) if same else None


def _as_sum(graph: Graph, node: Node, x: int, alpha: NDArray[Any]) -> Graph:
    out = graph.tensors[node.outputs[0]]
    data = (alpha.astype(np.float64) - 1).astype(np.float32)
    graph, slope = edit.add_tensor(graph, f"{out.name}.slope", data.shape, "FLOAT32", data)
    graph, lifted = edit.add_tensor(graph, f"{out.name}.lifted", out.shape, out.dtype)
    product = Node("MUL", ElementwiseAttrs(RELU), (x, slope), (lifted,), node.block)
    total = replace(node, op="ADD", attrs=ElementwiseAttrs(), inputs=(x, lifted))
    return edit.replace_node(edit.insert_before(graph, node, product), node, total)


def _as_prelu(graph: Graph, node: Node, x: int, alpha: NDArray[Any]) -> Graph:
    name = f"{graph.tensors[node.outputs[0]].name}.alpha"
    graph, constant = edit.add_tensor(graph, name, alpha.shape, "FLOAT32", alpha)
    return edit.replace_node(graph, node, replace(node, op="PRELU", attrs=NoAttrs(), inputs=(x, constant)))


def _without_unread(graph: Graph, tensors: tuple[int, ...]) -> Graph:
    """The graph without the nodes that write ``tensors`` if nobody reads them, and so on upwards."""
    for tensor in tensors:
        node = graph.producer(tensor) if tensor in graph.tensors else None
        if node is not None and not graph.users(tensor) and tensor not in graph.outputs:
            graph = _without_unread(edit.remove_node(graph, node), node.inputs)
    return graph


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for node in graph.nodes:
        found = _slopes(graph, node)
        if found is None:
            continue
        x, alpha = found
        if np.all(alpha <= 1):
            graph = _as_sum(graph, node, x, alpha)
        elif node.op != "PRELU":
            graph = _as_prelu(graph, node, x, alpha)
        graph = _without_unread(graph, node.inputs)
    return graph


REWRITE = Rewrite("rectifiers", "PReLU and leaky ReLU are sums of two ops", apply, order=-3)
