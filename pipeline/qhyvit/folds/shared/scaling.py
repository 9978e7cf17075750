"""Moves a channel scale through a graph: tensor T becomes T / r, and the neighbours take r up exactly.

The scale travels as an array of the tensor's full shape, so that RESHAPE and TRANSPOSE move it like the data. It
ends at weights: a producer divides its output channels by r, a consumer multiplies its input channels. In between
pass: copies and parts, sums and other homogeneous ops (all operands scaled alike), MUL (one operand scaled, or a
square), MEAN over axes where r is constant, BATCH_MATMUL (a free axis, or the contracted one with the inverse on the
other operand), fused RELU.

A node is met once from each of its scaled tensors. So a rule asks for scales and never multiplies: an operand that is
asked for the same scale again, constant or not, stays as it is, and one that is asked for another refuses. At the end
the products are looked at once more, because scales may reach their operands and their result from different sides.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator

import numpy as np

from qhyvit.folds.shared.fold import Place
from qhyvit.folds.shared.rules import PRODUCTS, RULES
from qhyvit.folds.shared.rules import concatenation as later
from qhyvit.folds.shared.scale import CannotScaleError as CannotScaleError
from qhyvit.folds.shared.scale import Scaling as Scaling
from qhyvit.folds.shared.scale import row_shape
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.work import FLOAT, work
from qhyvit.ops import spec


def visit(scaling: Scaling, node: Node) -> None:
    """Lead the scales that ``scaling`` notes through a node.

    Raises:
        CannotScaleError: the op lets no scale of channels pass.
    """
    rule = RULES.get(node.op)
    if rule is None:
        raise CannotScaleError(f"{node.op} does not let a channel scale pass")
    fused = getattr(node.attrs, "fused_activation_function", "NONE")
    if fused not in ("NONE", "RELU") and node.outputs[0] in scaling.tensors:
        raise CannotScaleError(f"{node.op} with {fused} does not let a channel scale pass")
    rule(scaling, node)


def solve(scaling: Scaling) -> None:
    """Spread until every producer and reader of every scaled tensor has taken its part.

    Raises:
        CannotScaleError: a neighbour cannot take its part, or the scales around a product do not fit together.
    """
    while scaling.queue or scaling.later:
        if not scaling.queue:
            later(scaling, scaling.later.pop(0))  # its other parts have no scale from elsewhere
            continue
        tensor = scaling.queue.pop()
        producer = scaling.graph.producer(tensor)
        assert producer is not None
        for node in (producer, *scaling.graph.users(tensor)):
            if node.outputs[0] not in scaling.taken:
                visit(scaling, node)
    for node in scaling.graph.nodes:
        met = any(scaling.scale_of(t) is not None for t in (*node.inputs, *node.outputs))
        absorbs = bool(scaling.absorbing.intersection(node.inputs))
        if met and node.op in PRODUCTS and not absorbs and node.outputs[0] not in scaling.taken:
            PRODUCTS[node.op](scaling, node)


def seeds(graph: Graph, seen: Container[int]) -> Iterator[Node]:
    """Ops with weights whose output has channels to scale and is not in ``seen``, to which the caller may add."""
    for node in graph.nodes:
        tensor = node.outputs[0]
        if spec(node.op).weight_input >= 0 and tensor not in seen and graph.tensors[tensor].shape[-1] > 1:
            yield node


def product_places(
    graph: Graph, tensors: Iterable[int], change: Callable[[Graph, int, np.ndarray], Graph]
) -> list[Place]:
    """Those of ``tensors`` that ``change(graph, tensor, r)`` can divide, for a float product with a constant [C]."""
    found = []
    for t in tensors:
        shape = graph.tensors[t].shape
        try:
            change(graph, t, np.linspace(1.0, 2.0, shape[-1]))
        except CannotScaleError:
            continue
        adds = (work("MUL", "", (shape, row_shape(shape)), shape, (FLOAT, FLOAT)),)
        found.append(Place(graph.tensors[t].name, (t,), shape[-1], adds))
    return found


def add_row(graph: Graph, name: str, r: np.ndarray, tensor: int) -> tuple[Graph, int]:
    """A constant with the factors ``r`` [C] for the channels of ``tensor``; the graph and its id."""
    data = r.astype(np.float32).reshape(row_shape(graph.tensors[tensor].shape))
    return edit.add_tensor(graph, name, data.shape, "FLOAT32", data)


def scale_tensor(graph: Graph, tensor: int, r: np.ndarray) -> Graph:
    """The graph with ``tensor`` divided by the channel scale ``r`` ([C], last axis), computing the same function.

    Raises:
        CannotScaleError: some neighbour cannot take the scale up.
    """
    scaling = Scaling(graph)
    scaling.want(tensor, np.asarray(r, np.float64))
    solve(scaling)
    return scaling.result()
