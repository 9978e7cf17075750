"""The SiLU split: x / r and SiLU(x) / r get one scale a channel, exactly.

The producing layer divides its output channels by r; a 1x1 depthwise convolution with weights r restores x
for the sigmoid alone, where large values are flat and may be clipped; MUL(x / r, sigmoid(x)) = SiLU(x) / r; the
readers multiply their input channels by r.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from qhyvit.folds._fold import Fold, Place
from qhyvit.folds._scaling import CannotScaleError, Scaling
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.latency.work import INT8, Work, kernel_name, work_of
from qhyvit.ops import spec
from qhyvit.ops.depthwise_conv_2d import DepthwiseConv2DAttrs
from qhyvit.ops.reshape import ReshapeAttrs


def _pattern(graph: Graph, node: Node) -> tuple[int, Node, Node] | None:
    """(x, LOGISTIC, MUL) if ``node`` is the LOGISTIC of a SiLU behind a convolution or linear."""
    if node.op != "LOGISTIC":
        return None
    x = node.inputs[0]
    users = graph.users(x)
    muls = [n for n in users if n.op == "MUL" and set(n.inputs) == {x, node.outputs[0]}]
    producer = graph.producer(x)
    if len(users) != 2 or len(muls) != 1 or producer is None:
        return None
    weighted = spec(producer.op).weight_input >= 0 and producer.attrs.fused_activation_function == "NONE"
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
        found.append(Place(graph.tensors[x].name, (x, mul.outputs[0]), channels, *_ops_of(graph, x, mul)))
    return found


def _ops_of(graph: Graph, x: int, mul: Node) -> tuple[tuple[Work, ...], tuple[Work, ...]]:
    """What comes, the restoring 1x1 convolution and a MUL by itself, and what goes: the one that LOGISTIC takes in."""
    elements = math.prod(graph.tensors[x].shape)
    restore = Work(kernel_name("DEPTHWISE_CONV_2D", "", INT8, INT8), elements, elements)
    return (restore, Work(kernel_name("MUL", "", INT8, INT8), elements)), (work_of(graph, mul, INT8, INT8),)


def apply(graph: Graph, place: Place, r: np.ndarray) -> Graph:
    """Split one SiLU by the channel scale ``r`` [C].

    Raises:
        CannotScaleError: the place does not fit the graph any more.
    """
    x, logistic, mul = _find(graph, place)
    graph = _scaled(graph, x, mul, np.asarray(r, np.float64))
    tensor, current = graph.tensors[x], next(n for n in graph.nodes if n.outputs == logistic.outputs)
    as_map = (1, math.prod(tensor.shape[:-1]), 1, tensor.shape[-1])
    if len(tensor.shape) == 4 and tensor.shape[0] == 1:
        graph, restored = _restore(graph, current, x, tensor, r)
    else:  # a depthwise convolution reads maps: the tokens become one, and tokens again
        graph, tokens = _reshape(graph, current, x, f"{tensor.name}.map", as_map)
        graph, restored = _restore(graph, current, tokens, graph.tensors[tokens], r)
        graph, restored = _reshape(graph, current, restored, f"{tensor.name}.tokens", tensor.shape)
    return edit.replace_node(graph, current, replace(current, inputs=(restored,)))


def _restore(graph: Graph, before: Node, x: int, tensor: Tensor, r: np.ndarray) -> tuple[Graph, int]:
    """x * r by a depthwise convolution on [1, H, W, C]."""
    weight_data = np.asarray(r, np.float32).reshape(1, 1, 1, -1)
    graph, weight = edit.add_tensor(graph, f"{tensor.name}.restore:weight", weight_data.shape, "FLOAT32", weight_data)
    zeros = np.zeros(len(r), np.float32)
    graph, bias = edit.add_tensor(graph, f"{tensor.name}.restore:bias", zeros.shape, "FLOAT32", zeros)
    graph, restored = edit.add_tensor(graph, f"{tensor.name}.restore", tensor.shape, "FLOAT32")
    attrs = DepthwiseConv2DAttrs(padding="VALID", depth_multiplier=1)
    node = Node("DEPTHWISE_CONV_2D", attrs, (x, weight, bias), (restored,), before.block)
    return edit.insert_before(graph, before, node), restored


def _reshape(graph: Graph, before: Node, x: int, name: str, shape: tuple[int, ...]) -> tuple[Graph, int]:
    data = np.array(shape, np.int32)
    graph, wanted = edit.add_tensor(graph, f"{name}:shape", data.shape, "INT32", data)
    graph, out = edit.add_tensor(graph, name, shape, "FLOAT32")
    return edit.insert_before(graph, before, Node("RESHAPE", ReshapeAttrs(), (x, wanted), (out,), before.block)), out


FOLD = Fold("silu_split", "one scale a channel through SiLU, by a 1x1 depthwise convolution", places, apply)
