"""One attempt to move a channel scale: which tensors have one by now, and what each constant is multiplied with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node

Scale = np.ndarray  # full shape of its tensor, positive


class CannotScaleError(Exception):
    """The scale met an op that does not let it pass; says which."""


@dataclass
class Scaling:
    """One attempt; ``factors`` collects what each constant is multiplied with.

    ``absorbing``: constant operands of MUL at which the scale ends; ``squares``: let it pass squares, as r^2.
    ``tensors``: the scale of each activation that has one; ``constants``: of each constant operand; ``taken``: first
    results of nodes that have taken their part already.
    """

    graph: Graph
    absorbing: frozenset[int] = frozenset()
    squares: bool = False
    taken: frozenset[int] = frozenset()
    tensors: dict[int, Scale] = field(default_factory=dict)
    constants: dict[int, Scale] = field(default_factory=dict)
    factors: dict[int, np.ndarray] = field(default_factory=dict)
    queue: list[int] = field(default_factory=list)
    later: list[Node] = field(default_factory=list)
    done: set[tuple[int, int]] = field(default_factory=set)

    def want(self, tensor: int, r: Scale) -> None:
        """Ask for ``tensor`` / r.

        Raises:
            CannotScaleError: another scale is on it already, or it is an end of the graph.
        """
        t, known = self.graph.tensors[tensor], self.scale_of(tensor)
        r = np.broadcast_to(r, t.shape)
        if known is not None:
            if not _equal(known, r):
                raise CannotScaleError(f"{t.name}: two different scales meet")
        elif t.is_constant:
            self.constants[tensor] = r
            self.scale_constant(tensor, 1.0 / r)
        elif tensor in self.graph.inputs or tensor in self.graph.outputs:
            raise CannotScaleError(f"{t.name} is an input or output of the model")
        else:
            self.tensors[tensor] = r
            self.queue.append(tensor)

    def scale_of(self, tensor: int) -> Scale | None:
        """The scale of an activation or constant operand; None where it has none."""
        return self.tensors.get(tensor, self.constants.get(tensor))

    def result(self) -> Graph:
        """The graph with all constants multiplied.

        Raises:
            CannotScaleError: a constant has other readers that would be changed too, or weights are no constant.
        """
        values = {}
        for t, factor in self.factors.items():
            if len(self.graph.users(t)) > 1:
                raise CannotScaleError(f"{self.graph.tensors[t].name} has several readers")
            if not self.graph.tensors[t].is_constant:
                raise CannotScaleError(f"{self.graph.tensors[t].name} are weights that are computed")
            values[t] = self.graph.constant(t).astype(np.float64) * factor
        return edit.with_constants(self.graph, values)

    def scale_constant(self, tensor: int, factor: np.ndarray) -> None:
        """Note one more factor of a constant; it broadcasts to the constant's shape."""
        shape = self.graph.tensors[tensor].shape
        self.factors[tensor] = self.factors.get(tensor, np.ones(shape)) * np.broadcast_to(factor, shape)

    def once(self, node: Node, side: int) -> bool:
        """True the first time that ``side`` of ``node`` is taken up."""
        key = (node.outputs[0], side)
        fresh = key not in self.done
        self.done.add(key)
        return fresh


def last_axis(r: Scale, what: str) -> np.ndarray:
    """The scale as [C].

    Raises:
        CannotScaleError: it varies along other axes.
    """
    flat = r.reshape(-1, r.shape[-1])
    if not np.allclose(flat, flat[:1], rtol=1e-9):
        raise CannotScaleError(f"{what}: the scale varies along more than the channels")
    found: np.ndarray = flat[0]
    return found


def row_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one number a channel beside a tensor of ``shape``: [1, .., C]."""
    return (*(1,) * (len(shape) - 1), shape[-1])


def along(vector: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """A vector [n] as an array of ``rank`` axes whose ``axis`` has n entries and the others one."""
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)


def narrow(r: Scale, shape: tuple[int, ...]) -> Scale:
    """The scale of a broadcast operand: r must be constant along the axes that it lacks."""
    wide = (1,) * (r.ndim - len(shape)) + tuple(shape)
    index = tuple(slice(0, 1) if n == 1 else slice(None) for n in wide)
    small = r[index]
    if not _equal(r, np.broadcast_to(small, r.shape)):
        raise CannotScaleError("the scale varies along an axis that is broadcast")
    return small.reshape(shape)


def _equal(a: Scale, b: Scale) -> bool:
    """Whether two scales of one shape are the same; along axes that both repeat (stride 0), one entry tells."""
    once = tuple(slice(None) if i or j else slice(0, 1) for i, j in zip(a.strides, b.strides, strict=True))
    return bool(np.allclose(a[once], b[once], rtol=1e-9))
