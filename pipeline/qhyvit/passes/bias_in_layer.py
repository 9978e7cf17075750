"""A constant that is added behind a layer, one number a channel, goes into the layer's bias.

The converter leaves it outside where the layer is a linear on a map of four axes: an int8 op over the whole map, with
an int8 step of its own.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import FusedActivation
from qhyvit.passes.shared.graph_pass import Pass


def _added(graph: Graph, node: Node) -> tuple[Node, int] | None:
    """The layer in front of an addition that its bias can do, and the constant: one number a channel, or one."""
    if node.op != "ADD":
        return None
    for tensor, other in (node.inputs, node.inputs[::-1]):
        layer, term, whole = graph.producer(tensor), graph.tensors[other], graph.tensors[tensor]
        if layer is None or spec(layer.op).bias_input < 0 or not term.is_constant or tensor in graph.outputs:
            continue
        linear = layer.attrs.fused_activation_function == FusedActivation.NONE
        fits = math.prod(term.shape) in (1, *term.shape[-1:]) and graph.tensors[node.outputs[0]].shape == whole.shape
        others = [u for u in graph.users(tensor) if u is not node]
        plain = not others or node.attrs.fused_activation_function == FusedActivation.NONE
        if linear and fits and plain and all(_can_take_out(graph, u, tensor) for u in others):
            return layer, other
    return None


def _can_take_out(graph: Graph, node: Node, tensor: int) -> bool:
    """Whether a linear reads ``tensor`` as its data: its own bias can undo what is added there."""
    weights = node.op == "FULLY_CONNECTED" and graph.tensors[node.inputs[1]].is_constant
    return weights and node.inputs.count(tensor) == 1 and node.inputs[0] == tensor


def _with_more(graph: Graph, layer: Node, term: NDArray[Any], name: str) -> tuple[Graph, tuple[int, ...]]:
    """The inputs of ``layer`` with ``term`` added to its bias."""
    position = spec(layer.op).bias_input
    if len(layer.inputs) > position and layer.inputs[position] >= 0:
        term = term + graph.constant(layer.inputs[position]).reshape(-1)
    graph, bias = edit.add_tensor(graph, name, term.shape, "FLOAT32", np.ascontiguousarray(term, np.float32))
    return graph, (*layer.inputs[:position], bias)


def _in_bias(graph: Graph, node: Node, layer: Node, constant: int) -> Graph:
    before, out = layer.outputs[0], graph.tensors[node.outputs[0]]
    term = np.broadcast_to(graph.constant(constant).reshape(-1), out.shape[-1:])
    for reader in graph.users(before):
        if reader is not node:
            name = f"{graph.tensors[reader.outputs[0]].name}:bias"
            graph, inputs = _with_more(graph, reader, -graph.constant(reader.inputs[1]) @ term, name)
            graph = edit.replace_node(graph, reader, replace(reader, inputs=(out.id, *inputs[1:])))
    graph, inputs = _with_more(graph, layer, term, f"{out.name}:bias")
    attrs = replace(layer.attrs, fused_activation_function=node.attrs.fused_activation_function)
    made = replace(layer, attrs=attrs, inputs=inputs, outputs=node.outputs)
    graph = edit.replace_node(graph, layer, made)
    tensors = {t: v for t, v in graph.tensors.items() if t != before}
    return replace(graph, nodes=tuple(n for n in graph.nodes if n is not node), tensors=tensors)


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for node in graph.nodes:
        found = _added(graph, node)
        if found is not None:
            graph = _in_bias(graph, node, *found)
    return graph


PASS = Pass(
    "bias_in_layer", "constants added behind a layer go into its bias", apply, after=("batched_layers", "own_layers")
)
