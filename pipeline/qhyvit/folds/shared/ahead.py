"""Scales that several tensors are given at once, led on through the ops that read them until they end.

Where :mod:`qhyvit.folds.shared.scaling` asks neighbour after neighbour, and knows one scale at a time, here all scales
are known where they begin. So products of two scaled operands have a scale, and roots have: a quotient whose numerator
and denominator are scaled alike comes out as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from qhyvit.folds.shared.scale import CannotScaleError, Scale
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import all_ops
from qhyvit.ops.shared.copies import copied
from qhyvit.ops.shared.layer import layer_of
from qhyvit.ops.shared.reduce import axes_of

ALIKE = 1e-9  # relative


@dataclass
class Ahead:
    """The scales that are known so far.

    Args:
        graph: with constants that have taken up scales.
        tensors: the scale of each activation that has one.
        taken: first results of the nodes that need no more of :func:`qhyvit.folds.shared.scaling.solve`.
        layers: scaled tensors that layers read, whose weights are to take the scale up.
    """

    graph: Graph
    tensors: dict[int, Scale]
    taken: set[int] = field(default_factory=set)
    layers: list[int] = field(default_factory=list)

    def of(self, tensor: int) -> Scale:
        """The scale of a tensor, 1 where it has none, in its own shape."""
        return np.broadcast_to(self.tensors.get(tensor, np.ones(())), self.graph.tensors[tensor].shape)


def _same(a: Scale, b: Scale) -> bool:
    return bool(np.allclose(a, b, rtol=ALIKE, atol=0))


def _copies(ahead: Ahead, node: Node) -> list[Scale]:
    known = [t for t in node.inputs if t in ahead.tensors]
    return list(copied(ahead.graph, node, ahead.of(known[0])))


def _sum(ahead: Ahead, node: Node) -> list[Scale]:
    """Two operands of one scale; a constant takes it up."""
    shape, known = ahead.graph.tensors[node.outputs[0]].shape, [t for t in node.inputs if t in ahead.tensors]
    r = np.broadcast_to(ahead.of(known[0]), shape)
    for position, t in enumerate(node.inputs):
        if ahead.graph.tensors[t].is_constant:
            ahead.graph, node = _divided(ahead.graph, node, position, r)
        elif not _same(np.broadcast_to(ahead.of(t), shape), r):
            raise CannotScaleError(f"{node.op} of operands with different scales")
    return [r]


def _divided(graph: Graph, node: Node, position: int, r: Scale) -> tuple[Graph, Node]:
    """A constant operand divided by r, as wide as r is."""
    varies = tuple(slice(None) if not _same(r, r.take([0], axis)) else slice(0, 1) for axis in range(r.ndim))
    old = graph.tensors[node.inputs[position]]
    data = (graph.constant(old.id).astype(np.float64) / r[varies]).astype(np.float32)
    graph, new = edit.add_tensor(graph, f"{graph.tensors[node.outputs[0]].name}:scaled", data.shape, old.dtype, data)
    inputs = tuple(new if i == position else t for i, t in enumerate(node.inputs))
    changed = replace(node, inputs=inputs)
    return edit.replace_node(graph, node, changed), changed


def _product(ahead: Ahead, node: Node) -> list[Scale]:
    a, b = (ahead.of(t) for t in node.inputs)
    return [a * b]


def _root(power: float) -> Callable[[Ahead, Node], list[Scale]]:
    return lambda ahead, node: [ahead.of(node.inputs[0]) ** power]


def _reduced(ahead: Ahead, node: Node) -> list[Scale]:
    """SUM, MEAN: of what has one scale along the axes."""
    r = ahead.of(node.inputs[0])
    first = r[tuple(slice(0, 1) if i in _axes(ahead.graph, node) else slice(None) for i in range(r.ndim))]
    if not _same(r, first):
        raise CannotScaleError(f"{node.op} over a scaled axis")
    return [first.reshape(ahead.graph.tensors[node.outputs[0]].shape)]


def _axes(graph: Graph, node: Node) -> tuple[int, ...]:
    return axes_of(graph.constant(node.inputs[1]), len(graph.tensors[node.inputs[0]].shape))


def _matmul(ahead: Ahead, node: Node) -> list[Scale]:
    """[.., M, K] @ [.., K, N]: a[m, k] * b[k, n] has to be the same for all k."""
    a, b = (ahead.of(t) for t in node.inputs)
    a = a.swapaxes(-1, -2) if node.attrs.adj_x else a
    b = b.swapaxes(-1, -2) if node.attrs.adj_y else b
    rows, columns = a / a[..., :1], b / b[..., :1, :]  # relative to the first k
    along_k = rows[..., :1, :].swapaxes(-1, -2) * columns[..., :1]
    if not (_same(rows, rows[..., :1, :]) and _same(columns, columns[..., :1]) and _same(along_k, np.ones(()))):
        raise CannotScaleError("BATCH_MATMUL of operands whose scales do not fit together")
    return [a[..., :1] * b[..., :1, :]]


AHEAD: dict[str, Callable[[Ahead, Node], list[Scale]]] = {
    **{name: _copies for name, op in all_ops().items() if op.copies is not None},
    **{name: _sum for name, op in all_ops().items() if op.homogeneous},
    "MUL": _product,
    "SQRT": _root(0.5),
    "RSQRT": _root(-0.5),
    "SUM": _reduced,
    "MEAN": _reduced,
    "BATCH_MATMUL": _matmul,
}


def led(graph: Graph, given: Mapping[int, Scale]) -> Ahead:
    """Where the scales ``given`` to tensors lead; each of the full shape of its tensor.

    Raises:
        CannotScaleError: an op lets no such scale pass, or one reaches an output of the graph.
    """
    ahead = Ahead(graph, dict(given))
    for node in graph.nodes:
        read = [t for t in node.inputs if t in ahead.tensors]
        if not read:
            continue
        if any(t in given for t in node.outputs):
            raise CannotScaleError(f"{node.op} is given what it gives")
        layer = layer_of(graph, node)
        if layer is not None and read == [layer.data]:
            ahead.layers.append(layer.data)
            continue
        rule = AHEAD.get(node.op)
        if rule is None or getattr(node.attrs, "fused_activation_function", "NONE") not in ("NONE", "RELU"):
            raise CannotScaleError(f"{node.op} does not let a channel scale pass")
        ahead.taken.add(node.outputs[0])
        for t, r in zip(node.outputs, rule(ahead, node), strict=True):
            if not _same(r, np.ones(())):
                ahead.tensors[t] = np.broadcast_to(r, graph.tensors[t].shape)
    if not ahead.tensors.keys().isdisjoint(graph.outputs):
        raise CannotScaleError("a scale reaches an output of the model")
    return ahead
