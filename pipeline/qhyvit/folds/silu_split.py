"""The SiLU split: x / r and SiLU(x) / r get one scale a channel, exactly.

The producing convolution divides its output channels by r; a 1x1 depthwise convolution with weights r restores x
for the sigmoid alone, where large values are flat and may be clipped; MUL(x / r, sigmoid(x)) = SiLU(x) / r; the
readers multiply their input channels by r.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.folds._fold import Fold, Place
from qhyvit.folds._scaling import CannotScaleError, Scaling
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.depthwise_conv_2d import DepthwiseConv2DAttrs


def _pattern(graph: Graph, node: Node) -> tuple[int, Node, Node] | None:
    """(x, LOGISTIC, MUL) if ``node`` is the LOGISTIC of a SiLU on a rank-4 convolution output."""
    if node.op != "LOGISTIC":
        return None
    x = node.inputs[0]
    users = graph.users(x)
    muls = [n for n in users if n.op == "MUL" and set(n.inputs) == {x, node.outputs[0]}]
    producer = graph.producer(x)
    if len(users) != 2 or len(muls) != 1 or producer is None or len(graph.tensors[x].shape) != 4:
        return None
    weighted = producer.op in ("CONV_2D", "DEPTHWISE_CONV_2D") and producer.attrs.fused_activation_function == "NONE"
    return (x, node, muls[0]) if weighted and len(graph.users(node.outputs[0])) == 1 else None


def _find(graph: Graph, place: Place) -> tuple[int, Node, Node]:
    for user in graph.users(place.tensors[0]):
        found = _pattern(graph, user)
        if found is not None:
            return found
    raise CannotScaleError(f"{place.name}: the SiLU is gone")


def _scaled(graph: Graph, x: int, mul: Node, r: np.ndarray) -> Graph:
    """All constants around x and SiLU(x) rescaled; the sigmoid still reads x / r."""
    scaling = Scaling(graph)
    out = mul.outputs[0]
    producer = graph.producer(x)
    assert producer is not None
    scaling.tensors[x] = np.broadcast_to(r, graph.tensors[x].shape)
    scaling._visit(producer)
    scaling.tensors[out] = np.broadcast_to(r, graph.tensors[out].shape)
    for user in graph.users(out):
        scaling._visit(user)
    scaling.solve()
    return scaling.result()


def places(graph: Graph) -> list[Place]:
    """Every SiLU behind a convolution whose readers can take a channel scale up."""
    found = []
    for node in graph.nodes:
        pattern = _pattern(graph, node)
        if pattern is None:
            continue
        x, _, mul = pattern
        channels = graph.tensors[x].shape[-1]
        try:
            _scaled(graph, x, mul, np.linspace(1.0, 2.0, channels))
        except CannotScaleError:
            continue
        found.append(Place(graph.tensors[x].name, (x, mul.outputs[0]), channels))
    return found


def apply(graph: Graph, place: Place, r: np.ndarray) -> Graph:
    """Split one SiLU by the channel scale ``r`` [C].

    Raises:
        CannotScaleError: the place does not fit the graph any more.
    """
    x, logistic, mul = _find(graph, place)
    graph = _scaled(graph, x, mul, np.asarray(r, np.float64))
    tensor = graph.tensors[x]
    weight_data = np.asarray(r, np.float32).reshape(1, 1, 1, -1)
    graph, weight = edit.add_tensor(graph, f"{tensor.name}.restore:weight", weight_data.shape, "FLOAT32", weight_data)
    zeros = np.zeros(place.channels, np.float32)
    graph, bias = edit.add_tensor(graph, f"{tensor.name}.restore:bias", zeros.shape, "FLOAT32", zeros)
    graph, restored = edit.add_tensor(graph, f"{tensor.name}.restore", tensor.shape, "FLOAT32")
    attrs = DepthwiseConv2DAttrs(padding="VALID", depth_multiplier=1)
    node = Node("DEPTHWISE_CONV_2D", attrs, (x, weight, bias), (restored,), logistic.block)
    current = next(n for n in graph.nodes if n.outputs == logistic.outputs)
    graph = edit.insert_before(graph, current, node)
    return edit.replace_node(graph, current, replace(current, inputs=(restored,)))


FOLD = Fold("silu_split", "one scale a channel through SiLU, by a 1x1 depthwise convolution", places, apply)
