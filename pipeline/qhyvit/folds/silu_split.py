"""The SiLU split: x / r and SiLU(x) / r get one scale a channel, exactly; and so do x and x * relu6(x + 3).

The producing layer divides its output channels by r; a product with r restores x for the gate alone (the sigmoid of
SiLU, or relu6(x + 3) of hard swish), where large values are flat and may be clipped; MUL(x / r, gate(x)) = SiLU(x) / r;
the readers multiply their input channels by r. r lies on the 8-bit grid, so that the constant is exact.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.folds.shared.fold import Fold, Place
from qhyvit.folds.shared.scale import last_axis
from qhyvit.folds.shared.scaling import CannotScaleError, Scaling, solve, visit
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.work import INT8, KernelWork, work, work_of
from qhyvit.ops import spec
from qhyvit.ops.shared.elementwise import ElementwiseAttrs
from qhyvit.ops.shared.spec import FusedActivation

# XNNPACK multiplies a constant [C] row by row; with few channels it is faster to have a whole line of the map
FEW_CHANNELS = 128


def _pattern(graph: Graph, node: Node) -> tuple[int, Node, Node] | None:
    """(x, gate, MUL) if ``node`` is the gate of a SiLU or hard swish behind a convolution or linear."""
    if not _is_gate(graph, node):
        return None
    x = node.inputs[0]
    users = graph.users(x)
    muls = [n for n in users if n.op == "MUL" and set(n.inputs) == {x, node.outputs[0]}]
    layer = graph.producer(_of_layer(graph, x))
    if len(users) != 2 or len(muls) != 1 or layer is None:
        return None
    weighted = spec(layer.op).weight_input >= 0 and layer.attrs.fused_activation_function == "NONE"
    return (x, node, muls[0]) if weighted and len(graph.users(node.outputs[0])) == 1 else None


def _of_layer(graph: Graph, x: int) -> int:
    """What a layer gave, of which ``x`` is a view: layers that write pairs of pixels have a RESHAPE behind them."""
    node = graph.producer(x)
    while node is not None and node.op == "RESHAPE":
        x = node.inputs[0]
        node = graph.producer(x)
    return x


def _part(graph: Graph, x: int, layer: int) -> tuple[int, tuple[int, ...]]:
    """The tensor ``layer`` and which channel of its view ``x`` each of its channels is.

    Raises:
        CannotScaleError: its channels are not always the same ones of ``x``.
    """
    shape = graph.tensors[x].shape
    places = np.broadcast_to(np.arange(shape[-1], dtype=np.float64), shape).reshape(graph.tensors[layer].shape)
    return layer, tuple(last_axis(places, "a view of a layer's result").astype(int).tolist())


def _is_gate(graph: Graph, node: Node) -> bool:
    """LOGISTIC, or ADD of a constant with RELU6."""
    if node.op != "ADD":
        return node.op == "LOGISTIC"
    return node.attrs.fused_activation_function == FusedActivation.RELU6 and graph.tensors[node.inputs[1]].is_constant


def _find(graph: Graph, place: Place) -> tuple[int, Node, Node]:
    known = graph.by_name.get(place.name)
    for user in () if known is None else graph.users(known.id):
        found = _pattern(graph, user)
        if found is not None:
            return found
    raise CannotScaleError(f"{place.name}: the SiLU is gone")


def _scaled(graph: Graph, x: int, mul: Node, r: np.ndarray) -> Graph:
    """All constants around x and SiLU(x) rescaled; the gate still reads x / r."""
    scaling = Scaling(graph)
    out = mul.outputs[0]
    producer = graph.producer(x)
    assert producer is not None
    scaling.tensors[x] = np.broadcast_to(r, graph.tensors[x].shape)
    visit(scaling, producer)
    scaling.tensors[out] = np.broadcast_to(r, graph.tensors[out].shape)
    for user in graph.users(out):
        visit(scaling, user)
    solve(scaling)
    return scaling.result()


def places(graph: Graph) -> list[Place]:
    """Every SiLU behind a convolution whose readers can take a channel scale up."""
    found = []
    for node in graph.nodes:
        pattern = _pattern(graph, node)
        if pattern is None:
            continue
        x, _, mul = pattern
        channels, layer = graph.tensors[x].shape[-1], _of_layer(graph, x)
        try:
            _scaled(graph, x, mul, np.linspace(1.0, 2.0, channels))
            parts = () if layer == x else (_part(graph, x, layer),)
        except CannotScaleError:
            continue
        name = graph.tensors[x].name
        found.append(Place(name, (x, mul.outputs[0]), channels, *_ops_of(graph, x, mul), 1, parts))
    return found


def _ops_of(graph: Graph, x: int, mul: Node) -> tuple[tuple[KernelWork, ...], tuple[KernelWork, ...]]:
    """What comes, the restoring product and a MUL by itself, and what goes: the one that the gate takes in."""
    shape = graph.tensors[x].shape
    operands = ((shape, _factor(np.ones(shape[-1], np.float32), shape).shape), (shape, shape))
    products = tuple(work("MUL", "", both, shape, (INT8, INT8)) for both in operands)
    return products, (work_of(graph, mul, INT8, INT8),)


def apply(graph: Graph, place: Place, r: np.ndarray) -> Graph:
    """Split one SiLU by the channel scale ``r`` [C].

    Raises:
        CannotScaleError: the place does not fit the graph any more.
    """
    x, gate, mul = _find(graph, place)
    graph = _scaled(graph, x, mul, np.asarray(r, np.float64))
    tensor, current = graph.tensors[x], next(n for n in graph.nodes if n.outputs == gate.outputs)
    factor = _factor(np.asarray(r, np.float32), tensor.shape)
    graph, constant = edit.add_tensor(graph, f"{tensor.name}.restore:factor", factor.shape, "FLOAT32", factor)
    graph, restored = edit.add_tensor(graph, f"{tensor.name}.restore", tensor.shape, "FLOAT32")
    product = Node("MUL", ElementwiseAttrs(), (x, constant), (restored,), current.block, current.reads, current.writes)
    graph = edit.insert_before(graph, current, product)
    return edit.replace_node(graph, current, replace(current, inputs=(restored, *current.inputs[1:])))


def _factor(r: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """r [C] for a tensor of ``shape``: [1, .., C], of a map with few channels [1, 1, W, C]."""
    width = shape[2] if len(shape) == 4 and len(r) < FEW_CHANNELS else 1
    return np.ascontiguousarray(np.broadcast_to(r, (*(1,) * (len(shape) - 2), width, len(r))))


FOLD = Fold("silu_split", "one scale a channel through SiLU or hard swish, by a product with a constant", places, apply)
