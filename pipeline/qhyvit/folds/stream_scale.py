"""A channel scale along a whole residual stream whose norms take their statistics over the channels.

Transformers keep a few channels of the stream many times larger than the rest; one scale a tensor then leaves the rest
a handful of codes. With x / r everywhere on the stream, the linears before and behind absorb r, and what a norm
computes over the channels gets it back: a mean of x or of its squares becomes a linear with weights r / C or r^2 / C in
place of MEAN, a subtracted mean is divided by r, and the product that sums the squares reads x / r * r, which is
symmetric, on both sides. r (or r^2) lies on the 8-bit grid, so that these weights are exact.

What a norm gives keeps the scale of what it was given: it goes on into the layers behind. A norm that computes outside
int8 gets x itself instead, x / r * r, and is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qhyvit.folds.shared.fold import Fold, Place, on_int16_grid
from qhyvit.folds.shared.scaling import CannotScaleError, Scaling, seeds, solve
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.work import FLOAT, INT8, KernelWork, kernel_name, work, work_of
from qhyvit.ops import copying
from qhyvit.ops.fully_connected import FullyConnectedAttrs
from qhyvit.ops.shared.elementwise import ElementwiseAttrs
from qhyvit.ops.shared.reduce import axes_of
from qhyvit.ops.shared.spec import Copies

COPIES = copying(Copies.ONCE) | {"PAD"}


@dataclass(frozen=True)
class StreamNorm:
    """The ops of a norm that look at the channels.

    Args:
        source: id of the stream's tensor that it normalises.
        mean: the MEAN of the stream, or a linear that does the same (None: the stream has mean 0 already).
        centre: the SUB that takes it off (None as well then).
        squares: the MEAN of squares, a linear that does the same, or the BATCH_MATMUL that sums them.
    """

    source: int
    mean: Node | None
    centre: Node | None
    squares: Node

    @property
    def is_summed(self) -> bool:
        """Whether a product sums the squares."""
        return self.squares.op == "BATCH_MATMUL"

    @property
    def averages(self) -> tuple[Node, ...]:
        """The MEANs over channels, or linears in their place, in order."""
        found = (self.mean, None if self.is_summed else self.squares)
        return tuple(n for n in found if n is not None)


def _behind_copies(graph: Graph, tensor: int) -> Node | None:
    """The node that made the values of ``tensor``."""
    node = graph.producer(tensor)
    while node is not None and node.op in COPIES:
        node = graph.producer(node.inputs[0])
    return node


def _axes(graph: Graph, mean: Node) -> tuple[int, ...]:
    return axes_of(graph.constant(mean.inputs[1]), len(graph.tensors[mean.inputs[0]].shape))


def _mean_of_channels(graph: Graph, tensor: int) -> Node | None:
    """The MEAN over the last axis, and perhaps others, from which ``tensor`` was averaged."""
    node = graph.producer(tensor)
    if node is None or node.op != "MEAN" or not node.attrs.keep_dims:
        return None
    last = len(graph.tensors[node.inputs[0]].shape) - 1
    return node if last in _axes(graph, node) else _mean_of_channels(graph, node.inputs[0])


def _averages(graph: Graph, node: Node) -> bool:
    """Whether ``node`` is a MEAN over the channels, or a linear that weighs them alike: no scale has passed it yet."""
    return _is_linear_mean(graph, node) or _mean_of_channels(graph, node.outputs[0]) is node


def _norm(graph: Graph, root: Node) -> StreamNorm | None:
    """The norm that ends in the RSQRT ``root``."""
    statistic = graph.producer(root.inputs[0])
    if statistic is not None and statistic.op == "ADD":
        statistic = next((p for t in statistic.inputs if (p := graph.producer(t)) is not None), None)
    if statistic is None:
        return None
    if statistic.op == "BATCH_MATMUL":
        return _summed(graph, statistic)
    square = graph.producer(statistic.inputs[0]) if _averages(graph, statistic) else None
    if square is None or square.op != "MUL" or square.inputs[0] != square.inputs[1]:
        return None
    centre = graph.producer(square.inputs[0])
    mean = graph.producer(centre.inputs[1]) if centre is not None and centre.op == "SUB" else None
    if centre is None or mean is None or not _averages(graph, mean) or mean.inputs[0] != centre.inputs[0]:
        return StreamNorm(square.inputs[0], None, None, statistic)
    return StreamNorm(centre.inputs[0], mean, centre, statistic)


def _summed(graph: Graph, squares: Node) -> StreamNorm | None:
    """The norm whose squares ``squares`` sums."""
    left, right = (_behind_copies(graph, t) for t in squares.inputs)
    if left is None or right is None or left.op != "SUB" or right.op != "SUB" or left.inputs != right.inputs:
        return None
    mean, twins = _mean_of_channels(graph, left.inputs[1]), [n for n in graph.nodes if n.inputs == left.inputs]
    # the squares may have a SUB of their own (passes/own_right_operand.py): the norm's centre is the other one
    centre = next((n for n in twins if n.op == "SUB" and n is not right), left)
    return None if mean is None else StreamNorm(centre.inputs[0], mean, centre, squares)


def _is_linear_mean(graph: Graph, node: Node) -> bool:
    """Whether a linear weighs all channels alike: no scale has passed it yet."""
    if node.op != "FULLY_CONNECTED" or not graph.tensors[node.inputs[1]].is_constant:
        return False
    weight = graph.constant(node.inputs[1])
    return len(weight) == 1 and bool((weight == weight[0, 0]).all())


def _mean_as_linear(graph: Graph, mean: Node) -> Graph:
    """MEAN over the channels as a linear with equal weights, and a MEAN over what other axes it has."""
    if mean.op == "FULLY_CONNECTED":
        return graph
    source, out = (graph.tensors[t] for t in (mean.inputs[0], mean.outputs[0]))
    share = np.full((1, source.shape[-1]), 1 / source.shape[-1], np.float32)
    graph, weight = edit.add_tensor(graph, f"{out.name}:weight", share.shape, "FLOAT32", share)
    graph, bias = edit.add_tensor(graph, f"{out.name}:bias", (1,), "FLOAT32", np.zeros(1, np.float32))
    attrs, inputs = FullyConnectedAttrs(keep_num_dims=True), (source.id, weight, bias)
    others = _axes(graph, mean)[:-1]
    if not others:
        return edit.replace_node(graph, mean, replace(mean, op="FULLY_CONNECTED", attrs=attrs, inputs=inputs))
    graph, rows = edit.add_tensor(graph, f"{out.name}.tokens", (*source.shape[:-1], 1), source.dtype)
    linear = Node("FULLY_CONNECTED", attrs, inputs, (rows,), mean.block)
    graph = edit.insert_before(graph, mean, linear)
    data = np.array(others, np.int32)
    graph, axes = edit.add_tensor(graph, f"{out.name}:axes", data.shape, "INT32", data)
    return edit.replace_node(graph, mean, replace(mean, inputs=(rows, axes)))


def _times_ones(graph: Graph, before: Node, tensor: int, name: str) -> tuple[Graph, int, int]:
    """``tensor`` * 1 for every channel, in front of ``before``: the graph, the product's id and the constant's."""
    shape, channels = graph.tensors[tensor].shape, graph.tensors[before.inputs[0]].shape[-1]
    ones = np.ones((*(1,) * (len(shape) - 1), channels), np.float32)
    graph, constant = edit.add_tensor(graph, f"{name}:factor", ones.shape, "FLOAT32", ones)
    graph, out = edit.add_tensor(graph, name, (*shape[:-1], channels), "FLOAT32")
    node = Node("MUL", ElementwiseAttrs(), (tensor, constant), (out,), before.block)
    return edit.insert_before(graph, before, node), out, constant


def _is_outside(graph: Graph, norm: StreamNorm) -> bool:
    """Whether all ops of the norm that look at the channels compute outside int8."""
    return all(not n.is_int8 for n in (norm.mean, norm.centre, norm.squares) if n is not None)


def _restored(graph: Graph, source: int) -> tuple[Graph, list[int]]:
    """A product with 1 for every channel between ``source`` and its readers outside int8, which takes the scale off."""
    readers = [n for n in graph.users(source) if not n.is_int8]
    graph, whole, constant = _times_ones(graph, readers[0], source, f"{graph.tensors[source].name}.whole")
    graph = edit.read_instead(graph, source, whole, readers)
    return edit.computed_in(graph, [whole], readers[0].reads, readers[0].writes), [constant]


def _prepared(graph: Graph, norm: StreamNorm) -> tuple[Graph, list[int]]:
    """The graph with a form of the norm that takes a scale up, and the constants that end it."""
    if _is_outside(graph, norm):
        return _restored(graph, norm.source)
    for average in norm.averages:
        graph = _mean_as_linear(graph, average)
    if norm.centre is None:
        return graph, []
    source, mean = norm.centre.inputs
    graph, spread, _ = _times_ones(graph, norm.centre, mean, f"{graph.tensors[mean].name}.spread")
    centre = replace(norm.centre, inputs=(source, spread))
    graph = edit.replace_node(graph, norm.centre, centre)
    if not norm.is_summed:
        return graph, []
    out = centre.outputs[0]
    copy = _behind_copies(graph, norm.squares.inputs[1])
    assert copy is not None
    squared = {out, copy.outputs[0]}  # the centre and, where the squares have one of their own, its twin
    readers = [n for n in graph.nodes if n.op in COPIES and n.inputs[0] in squared]
    graph, whole, constant = _times_ones(graph, readers[0], out, f"{graph.tensors[out].name}.whole")
    for reader in readers:
        graph = edit.replace_node(graph, reader, replace(reader, inputs=(whole, *reader.inputs[1:])))
    return (graph if copy.outputs[0] == out else edit.remove_node(graph, copy)), [constant]


def _norms(graph: Graph) -> list[StreamNorm]:
    found = [_norm(graph, node) for node in graph.nodes if node.op == "RSQRT"]
    return [n for n in found if n is not None]


def _ready(graph: Graph, norms: Sequence[StreamNorm]) -> tuple[Graph, frozenset[int]]:
    ends: list[int] = []
    for norm in norms:
        graph, constants = _prepared(graph, norm)
        ends += constants
    return graph, frozenset(ends)


def _spread(graph: Graph, ends: frozenset[int], tensor: int, r: np.ndarray) -> Scaling:
    scaling = Scaling(graph, absorbing=ends, squares=True)
    scaling.want(tensor, r)
    solve(scaling)
    return scaling


def _touched(scaling: Scaling, norms: Sequence[StreamNorm]) -> list[StreamNorm]:
    """The norms that the scale has reached."""
    return [n for n in norms if n.source in scaling.tensors]


def places(graph: Graph) -> list[Place]:
    """One place for every residual stream that only norms kept from taking a scale."""
    norms = _norms(graph)
    ready, ends = _ready(graph, norms)
    found: list[Place] = []
    seen: set[int] = set()
    for node in seeds(graph, seen):
        tensor = node.outputs[0]
        channels = graph.tensors[tensor].shape[-1]
        try:
            scaling = _spread(ready, ends, tensor, np.linspace(1.5, 2.0, channels))
            scaling.result()
        except CannotScaleError:
            continue
        seen.update(scaling.tensors)
        touched = _touched(scaling, norms)
        if touched:
            found.append(_place(graph, scaling, node, touched))
    return found


def _carries(scaling: Scaling, tensor: int, r: np.ndarray) -> bool:
    """Whether all channels of ``tensor`` are divided by the stream's own scale: squares and parts are not."""
    scale = scaling.tensors.get(tensor)
    return scale is not None and scale.shape[-1:] == r.shape and np.allclose(scale, r, rtol=1e-9)


def _place(graph: Graph, scaling: Scaling, seed: Node, norms: Sequence[StreamNorm]) -> Place:
    """The tensors that gain, the last one being the stream where it is deepest."""
    r = scaling.tensors[seed.outputs[0]].reshape(-1, graph.tensors[seed.outputs[0]].shape[-1])[0]
    inside = [n for n in norms if not _is_outside(graph, n)]
    scaled = [n for n in graph.nodes if n.op not in COPIES and _carries(scaling, n.outputs[0], r)]
    deepest = [n for n in scaled if n.op == "ADD"][-1:] or [seed]
    tensors = [n.outputs[0] for n in scaled if n is not deepest[0]] + [deepest[0].outputs[0]]
    power = 0 if not inside else 1 if all(n.is_summed for n in inside) else 2
    name, channels = graph.tensors[seed.outputs[0]].name, graph.tensors[seed.outputs[0]].shape[-1]
    adds, saves = _ops_of(graph, norms, channels)
    others = [n.outputs[0] for n in graph.nodes if n.op not in COPIES and n.outputs[0] not in tensors]
    positions = {t: _positions(scaling.tensors[t], r) for t in others if t in scaling.tensors}
    parts = tuple((t, position) for t, position in positions.items() if position is not None)
    return Place(name, tuple(tensors), channels, adds, saves, power, parts)


def _positions(scale: np.ndarray, r: np.ndarray) -> tuple[int, ...] | None:
    """Where in ``r``, whose numbers differ, each channel has its scale from, -1 for 1; None: not from there alone."""
    rows = scale.reshape(-1, scale.shape[-1])
    if not np.allclose(rows, rows[:1], rtol=1e-9):
        return None
    distance = np.abs(rows[0][:, None] - r[None])
    nearest, free = distance.argmin(axis=1), np.isclose(rows[0], 1.0, rtol=1e-9)
    if not (free | np.isclose(r[nearest], rows[0], rtol=1e-9)).all() or free.all():
        return None
    return tuple(int(i) for i in np.where(free, -1, nearest))


def _ops_of(
    graph: Graph, norms: Sequence[StreamNorm], channels: int
) -> tuple[tuple[KernelWork, ...], tuple[KernelWork, ...]]:
    """What comes and what goes.

    Linears come in the place of means; products of a subtracted mean with 1 / r, and of what it is subtracted from with
    r, in the place of a difference that the squares had for themselves.
    """
    adds, saves = [], []
    for norm in norms:
        if _is_outside(graph, norm):
            shape = graph.tensors[norm.source].shape
            row = (*(1,) * (len(shape) - 1), channels)
            adds.append(work("MUL", "", (shape, row), shape, (FLOAT, FLOAT)))
            continue
        for average in (n for n in norm.averages if n.op == "MEAN"):
            elements = math.prod(graph.tensors[average.inputs[0]].shape)
            adds.append(KernelWork(kernel_name("FULLY_CONNECTED", "", INT8, INT8), elements, elements))
            saves.append(work_of(graph, average, INT8, INT8))
            if len(_axes(graph, average)) > 1:  # over tokens as well
                adds.append(KernelWork(kernel_name("MEAN", "", INT8, INT8), elements // channels))
        if norm.centre is None:
            continue
        shape, mean = (graph.tensors[t].shape for t in (norm.centre.outputs[0], norm.centre.inputs[1]))
        row, spread = (*(1,) * (len(shape) - 1), channels), (*mean[:-1], channels)
        adds.append(work("MUL", "", (mean, row), spread, (INT8, INT8)))
        # the difference reads a row now, where the mean was a number
        adds.append(work("SUB", "", (shape, spread), shape, (INT8, INT8)))
        saves.append(work_of(graph, norm.centre, INT8, INT8))
        if norm.is_summed:
            adds.append(work("MUL", "", (shape, row), shape, (INT8, INT8)))
            if _behind_copies(graph, norm.squares.inputs[1]) is not norm.centre:
                saves.append(work_of(graph, norm.centre, INT8, INT8))
    return tuple(adds), tuple(saves)


def apply(graph: Graph, place: Place, r: np.ndarray) -> Graph:
    """Divide the stream by ``r`` [C].

    Raises:
        CannotScaleError: the place does not fit the graph any more.
    """
    seed, scale = graph.by_name.get(place.name), np.asarray(r, np.float64)
    if seed is None or graph.producer(seed.id) is None:
        raise CannotScaleError(f"{place.name}: the stream is gone")
    norms, tensor = _norms(graph), seed.id
    if not place.exact_power:  # what gets the stream back outside int8 multiplies by it
        scale = on_int16_grid(scale)
    reached = _touched(_spread(*_ready(graph, norms), tensor, scale), norms)
    return _spread(*_ready(graph, reached), tensor, scale).result()


FOLD = Fold("stream_scale", "one scale a channel along a residual stream, its norms included", places, apply)
