"""A factor or a term for each channel, constant, goes into the layers behind it, or a factor into the layer before.

Norms have both (gamma and beta), layer scales are one. As ops of their own each rounds the whole tensor once more, to
a grid that the largest channel sets; in a layer's weights and bias they cost nothing. Those that other ops read as well
become one depthwise 1x1 convolution: one rounding instead of two, and a scale for each channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.spec import FusedActivation
from qhyvit.passes.shared.graph_pass import Pass

DENSE = ("CONV_2D", "FULLY_CONNECTED")


def _constant_of(graph: Graph, node: Node) -> tuple[int, np.ndarray] | None:
    """What an elementwise op changes, and one number for each of its channels, [C] float64; None: it is no such op."""
    for x, c in (node.inputs, node.inputs[::-1]):
        data, shape = graph.tensors[c].data, graph.tensors[x].shape
        if data is None or graph.tensors[x].is_constant or graph.tensors[x].dtype != "FLOAT32" or not shape:
            continue
        along = data.size in (1, *data.shape[-1:])
        if along and data.size in (1, shape[-1]) and graph.tensors[node.outputs[0]].shape == shape:
            return x, np.broadcast_to(data.astype(np.float64).reshape(-1), (shape[-1],))
    return None


def _readers(graph: Graph, tensor: int, *, padded: bool) -> list[Node] | None:
    """All layers that read ``tensor`` with its channels as they are, through copies; None where another op does."""
    found: list[Node] = []
    for user in graph.users(tensor):
        source, out = (graph.tensors[t].shape for t in (user.inputs[0], user.outputs[0]))
        if user.op in DENSE or user.op == "DEPTHWISE_CONV_2D":
            if not _takes(graph, user, tensor, padded=padded):
                return None
            found.append(user)
            continue
        keeps = user.op == "RESHAPE" and source[-1:] == out[-1:]
        if user.op == "TRANSPOSE":
            keeps = int(graph.constant(user.inputs[1])[-1]) == len(source) - 1
        keeps |= user.op == "PAD" and padded
        more = _readers(graph, user.outputs[0], padded=padded) if keeps else None
        if more is None:
            return None
        found += more
    return None if tensor in graph.outputs else found


def _takes(graph: Graph, layer: Node, tensor: int, *, padded: bool) -> bool:
    """Whether the weights of ``layer`` see each channel of ``tensor`` by itself; not ``padded``: and no zeros."""
    weight, channels = graph.tensors[layer.inputs[1]], graph.tensors[tensor].shape[-1]
    whole = weight.is_constant and weight.shape[-1] == channels and layer.inputs.count(tensor) == 1
    attrs = layer.attrs
    no_zeros = padded or layer.op == "FULLY_CONNECTED" or attrs.padding == "VALID" or weight.shape[1:3] == (1, 1)
    return whole and layer.inputs[0] == tensor and no_zeros


def _scaled(graph: Graph, layers: Sequence[Node], factor: np.ndarray) -> Graph:
    """Input channels of the layers' weights times ``factor``."""
    for layer in layers:
        graph, own = edit.own_constant(graph, layer, 1)
        graph = edit.with_constants(graph, {own.inputs[1]: graph.constant(own.inputs[1]) * factor})
    return graph


def _shifted(graph: Graph, layers: Sequence[Node], term: np.ndarray) -> Graph:
    """Biases that hold what the layers make of ``term`` on their input channels."""
    for layer in layers:
        weight = graph.constant(layer.inputs[1]).astype(np.float64)
        more = (weight * term).reshape(-1, weight.shape[-1]).sum(0)  # depthwise: over the taps
        if layer.op in DENSE:
            more = (weight * term).reshape(len(weight), -1).sum(1)
        position = spec(layer.op).bias_input
        if len(layer.inputs) > position and layer.inputs[position] >= 0:
            more = more + graph.constant(layer.inputs[position]).reshape(-1)
        name = f"{graph.tensors[layer.outputs[0]].name}:bias"
        graph, bias = edit.add_tensor(graph, name, more.shape, "FLOAT32", more.astype(np.float32))
        graph = edit.replace_node(graph, layer, replace(layer, inputs=(*layer.inputs[:position], bias)))
    return graph


def _is_plain(node: Node) -> bool:
    return getattr(node.attrs, "fused_activation_function", FusedActivation.NONE) == FusedActivation.NONE


def _behind(graph: Graph, node: Node, source: int, values: np.ndarray) -> Graph | None:
    """A factor or a term in the layers behind."""
    layers = _readers(graph, node.outputs[0], padded=node.op == "MUL")
    if not layers:
        return None
    if node.op == "MUL":
        return edit.bypassed(_scaled(graph, layers, values), node, source)
    shift = values if node.op == "ADD" else -values
    is_turned = node.op == "SUB" and node.inputs[0] != source  # c - x
    return None if is_turned else edit.bypassed(_shifted(graph, layers, shift), node, source)


def _before(graph: Graph, node: Node, source: int, values: np.ndarray) -> Graph | None:
    """A factor in the layer before, which nobody else reads."""
    layer = graph.producer(source)
    if node.op != "MUL" or layer is None or spec(layer.op).weight_input < 0 or len(graph.users(source)) > 1:
        return None
    op = spec(layer.op)
    weight = graph.tensors[layer.inputs[op.weight_input]]
    if not weight.is_constant or not _is_plain(layer) or source in graph.outputs:
        return None
    shape = [1] * len(weight.shape)
    shape[op.weight_axis] = -1
    for position, factor in ((op.weight_input, values.reshape(shape)), (op.bias_input, values)):
        if len(layer.inputs) > position and layer.inputs[position] >= 0:
            graph, layer = edit.own_constant(graph, layer, position)
            t = layer.inputs[position]
            graph = edit.with_constants(graph, {t: graph.constant(t) * factor})
    # the layer writes what the product did, which may be an output of the graph
    nodes = tuple(replace(n, outputs=node.outputs) if n is layer else n for n in graph.nodes if n is not node)
    return replace(graph, nodes=nodes, tensors={t: v for t, v in graph.tensors.items() if t != source})


def _as_depthwise(graph: Graph, product: Node, source: int, factor: np.ndarray) -> Graph | None:
    """A norm's factor, and the term that is added to nothing else, as one depthwise 1x1 convolution."""
    made, out = graph.producer(source), graph.tensors[product.outputs[0]]
    users = graph.users(out.id)
    if made is None or made.op != "MUL" or len(users) != 1 or users[0].op != "ADD" or out.id in graph.outputs:
        return None
    total, term = users[0], _constant_of(graph, users[0])
    if term is None or term[0] != out.id or not _is_plain(total):
        return None
    chain = Chain(graph, total)
    rows = chain.reshape(source, 1, 1, math.prod(out.shape[:-1]), len(factor))
    constants = chain.constant(factor.reshape(1, 1, 1, -1)), chain.constant(np.ascontiguousarray(term[1]))
    affine = chain.add("DEPTHWISE_CONV_2D", rows, *constants, padding="VALID")
    return chain.instead("RESHAPE", affine, chain.constant(out.shape), new_shape=out.shape)


def _moved(graph: Graph, node: Node) -> Graph | None:
    """The graph with one factor or term less; None where there is no place for it."""
    found = _constant_of(graph, node) if node.op in ("MUL", "ADD", "SUB") and _is_plain(node) else None
    if found is None:
        return None
    for move in (_behind, _before):
        moved = move(graph, node, *found)
        if moved is not None:
            return moved
    return _as_depthwise(graph, node, *found) if node.op == "MUL" else None


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same sums. From the end, as a norm's term stands behind its factor."""
    for node in reversed(graph.nodes):
        current = graph.producer(node.outputs[0]) if node.outputs[0] in graph.tensors else None
        moved = None if current is None else _moved(graph, current)
        graph = graph if moved is None else moved
    return graph


PASS = Pass(
    "channel_factors",
    "constant factors and terms of channels go into layers",
    apply,
    after=("bias_in_layer", "hard_swishes", "layer_norms", "one_reshape", "own_right_operand"),
)
