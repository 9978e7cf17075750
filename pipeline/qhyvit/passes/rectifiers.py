"""PReLU and leaky ReLU are x + relu((alpha - 1) x), where no alpha is above 1: MUL with a fused RELU, and ADD.

The converter writes PReLU as relu(x) - alpha * relu(-x), whose RELU alone XNNPACK has not in int8; TFLite's int8 PRELU
is far slower than MUL and ADD, and XNNPACK's int8 LEAKY_RELU rounds its slope, alpha times the ratio of the scales, to
a multiple of 1/256. With an alpha above 1 it is a PRELU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.spec import FusedActivation
from qhyvit.passes.shared.graph_pass import Pass

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


def _made(graph: Graph, node: Node, x: int, alpha: NDArray[Any]) -> Graph:
    chain = Chain(graph, node)
    if np.all(alpha <= 1):
        lifted = chain.add("MUL", x, chain.constant(alpha.astype(np.float64) - 1), fused_activation_function=RELU)
        return chain.instead("ADD", x, lifted)
    return graph if node.op == "PRELU" else chain.instead("PRELU", x, chain.constant(alpha))


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for node in graph.nodes:
        found = _slopes(graph, node)
        if found is not None:
            graph = _made(graph, node, *found)
    return graph


PASS = Pass("rectifiers", "PReLU and leaky ReLU are sums of two ops", apply)
