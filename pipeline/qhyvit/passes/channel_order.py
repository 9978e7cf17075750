"""A convolution reads channels in the order in which they lie: another order, BGR for RGB, goes into its weights.

Recognised by what is computed: whatever ops move values between a map and the convolution, if every pixel stays where
it is and gets its channels from the same ones of its own, the convolution reads the map. What a constant adds or
multiplies behind, channel by channel, takes the order on where it is a permutation.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.passes.shared.graph_pass import Pass, Phase
from qhyvit.passes.shared.values import results_of

LONGEST = 16  # ops between the map and the convolution


def _origin(graph: Graph, tensor: int) -> tuple[int, list[Node]] | None:
    """The one tensor whose values ``tensor`` holds, and the ops in between, in the order of execution."""
    nodes: list[Node] = []
    sources, waiting = set(), [tensor]
    while waiting and len(nodes) <= LONGEST:
        t = waiting.pop()
        node = graph.producer(t)
        if node is None or spec(node.op).copies is None:
            sources.add(t)
        elif node not in nodes:
            nodes.append(node)
            waiting += [i for i in node.inputs if graph.tensors[i].dtype == "FLOAT32"]
    if not nodes or len(nodes) > LONGEST or len(sources) != 1:
        return None
    return sources.pop(), sorted(nodes, key=graph.nodes.index)


def _order(graph: Graph, tensor: int) -> tuple[int, list[int]] | None:
    """The map that ``tensor`` is made of, and which of its channels each channel is; None where pixels move."""
    found, shape = _origin(graph, tensor), graph.tensors[tensor].shape
    source = None if found is None else graph.tensors[found[0]]
    if found is None or source is None or source.is_constant or source.shape[:-1] != shape[:-1] or len(shape) != 4:
        return None
    pixels = math.prod(source.shape)
    given = torch.arange(pixels, dtype=torch.float64).reshape(1, *source.shape)
    places = results_of(graph, source.id, found[1], given)[tensor].long()
    order, first = places[0, 0, 0, 0], torch.arange(0, pixels, source.shape[-1]).reshape(1, *source.shape[:-1], 1)
    return (source.id, order.tolist()) if torch.equal(places, first + order) else None


def _behind(graph: Graph, tensor: int) -> list[Node]:
    """Ops with one reader each that treat channels apart, up to ``tensor``; the first one reads what has an order."""
    node = graph.producer(tensor)
    if node is None or tensor in graph.outputs or len(graph.users(tensor)) > 1:
        return []
    if node.op == "PAD" and not graph.constant(node.inputs[1])[-1].any():
        return [*_behind(graph, node.inputs[0]), node]
    known = [t for t in node.inputs if graph.tensors[t].is_constant]
    fits = [_last(graph, t) in ((), (1,), _last(graph, tensor)) for t in known]
    if not spec(node.op).pairwise or fits != [True]:
        return []
    return [*_behind(graph, next(t for t in node.inputs if t not in known)), node]


def _last(graph: Graph, tensor: int) -> tuple[int, ...]:
    return graph.tensors[tensor].shape[-1:]


def _read(graph: Graph, node: Node) -> int:
    """What an op of :func:`_behind` reads."""
    return next(t for t in node.inputs if not graph.tensors[t].is_constant)


def _ordered_weight(graph: Graph, layer: Node, order: list[int], channels: int) -> np.ndarray:
    """The weight [O, kh, kw, C] for ``channels`` channels in their own order; what is read twice is added up."""
    weight = graph.constant(layer.inputs[1])
    found = np.zeros((*weight.shape[:-1], channels), weight.dtype)
    for position, channel in enumerate(order):
        found[..., channel] += weight[..., position]
    return found


def _with_order(graph: Graph, layer: Node, between: list[Node], source: int, order: list[int]) -> Graph:
    for index, node in enumerate(between):
        read = _read(graph, node)
        for position, t in enumerate(node.inputs):
            if t != read and node.op != "PAD" and _last(graph, t) == (len(order),):
                graph, node = edit.own_constant(graph, node, position)
                t = node.inputs[position]
                graph = edit.with_constants(graph, {t: graph.constant(t)[..., np.argsort(order)]})
        if index == 0:
            graph = edit.read_instead(graph, read, source, [node])
    name, weight = graph.tensors[layer.inputs[1]].name, _ordered_weight(graph, layer, order, _last(graph, source)[0])
    graph, t = edit.add_tensor(graph, f"{name}.ordered", weight.shape, "FLOAT32", weight)
    inputs = (layer.inputs[0] if between else source, t, *layer.inputs[2:])
    return edit.without_unread(edit.replace_node(graph, layer, replace(layer, inputs=inputs)))


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for layer in graph.nodes:
        if layer.op != "CONV_2D" or not graph.tensors[layer.inputs[1]].is_constant:
            continue
        if _last(graph, layer.inputs[1]) != _last(graph, layer.inputs[0]):  # groups
            continue
        between = _behind(graph, layer.inputs[0])
        start = _read(graph, between[0]) if between else layer.inputs[0]
        found = _order(graph, start)
        if found is None or (between and sorted(found[1]) != list(range(_last(graph, found[0])[0]))):
            continue
        graph = _with_order(graph, layer, between, *found)
    return graph


PASS = Pass(
    "channel_order",
    "an order of channels in front of a convolution is in its weights",
    apply,
    phase=Phase.EXPORT,
)
