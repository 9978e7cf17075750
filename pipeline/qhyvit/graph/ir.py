"""The typed graph: frozen dataclasses for one static subgraph, as a float ``.tflite`` holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhyvit.errors import GraphError

INT4, INT8, INT16, FLOAT = "INT4", "INT8", "INT16", "FLOAT32"


@dataclass(frozen=True)
class Quantization:
    """What the codes of an integer tensor stand for: scale * (code - zero_point).

    Args:
        scale: one value, or one for each index of ``axis``; float32 values held as Python floats.
        zero_point: 0 where there are several scales.
        axis: the axis with a scale for each index; None where there is one scale.
        bits: of the tensor's type.
    """

    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None
    bits: int = 8

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest code that the type holds."""
        half = 1 << (self.bits - 1)
        return -half, half - 1

    def along(self, rank: int) -> NDArray[np.float64]:
        """The scales, float64, in a shape that broadcasts over codes of ``rank`` dimensions."""
        shape = [1] * rank
        if self.axis is not None:
            shape[self.axis] = -1
        return np.asarray(self.scale, np.float64).reshape(shape)


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor. ``data`` holds a constant's values or codes (float32, int8, ...), None for activations.

    Codes of INT4 are held as int8, one an element; files hold two in a byte.

    ``shape`` is that of the file (batch 1). ``name`` is unique in its graph. ``quantization``: what the codes of an
    integer tensor stand for; None for float tensors, shapes and axes.
    """

    id: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    data: NDArray[Any] | None = None
    quantization: Quantization | None = None

    @property
    def is_constant(self) -> bool:
        """Whether the values are part of the file."""
        return self.data is not None


@dataclass(frozen=True, eq=False)
class Node:
    """One op. ``op`` is the TFLite builtin name; ``inputs`` are tensor ids, -1 where an optional one is absent.

    Args:
        attrs: the op's own attribute dataclass (see ``qhyvit.ops``).
        block: the module path it came from.
        reads, writes: types in which the file is to compute it; the graph of a search is float all over. INT8, or, in
            an island, FLOAT32 or INT16; an op that reads INT8 may write INT16 (``OpSpec.wide``).
        gate: it stands for another function: LOGISTIC for the normal distribution function, sigmoid(z) for
            Phi(z / 1.702), and ELU for exp(z) - 1, which it is up to 0, the end of what calibration saw. No edit may
            make other approximations. An executor computes the function itself on request, so that the unedited network
            is never lost.
    """

    op: str
    attrs: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    block: str = ""
    reads: str = INT8
    writes: str = INT8
    gate: bool = False

    @property
    def is_int8(self) -> bool:
        """Whether the file computes it in int8: else a QUANTIZE behind it makes int8 codes."""
        return self.writes == INT8

    @property
    def in_island(self) -> bool:
        """Whether it reads no int8 codes either."""
        return self.reads != INT8


@dataclass(frozen=True, eq=False)
class Graph:
    """Tensors by id, nodes in execution order, ids of inputs and outputs. Edits make a new Graph.

    Args:
        centred: it is for a target whose activations have zero point 0 wherever no kernel prescribes another.
    """

    tensors: Mapping[int, Tensor]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    centred: bool = False

    @cached_property
    def islands(self) -> frozenset[int]:
        """Ids of what nodes in islands write."""
        return frozenset(t for node in self.nodes if node.in_island for t in node.outputs)

    @cached_property
    def widened(self) -> frozenset[int]:
        """Ids of what nodes write in int16 that read int8."""
        return frozenset(t for node in self.nodes if not node.is_int8 and not node.in_island for t in node.outputs)

    @cached_property
    def gates(self) -> frozenset[int]:
        """Ids of what gates write."""
        return frozenset(t for node in self.nodes if node.gate for t in node.outputs)

    def stays_inside(self, tensor: int) -> bool:
        """Whether the file holds ``tensor`` in islands only: a node's output or constant that no int8 node reads."""
        here = tensor in self.islands or self.tensors[tensor].is_constant
        users = self.users(tensor)
        return here and tensor not in self.outputs and bool(users) and all(u.in_island for u in users)

    def is_both(self, tensor: int) -> bool:
        """Whether the file holds ``tensor`` as an island writes it, for readers there, and as int8 codes for others."""
        inside = tensor in self.islands and not self.stays_inside(tensor)
        return inside and any(u.in_island for u in self.users(tensor))

    @cached_property
    def _producers(self) -> dict[int, Node]:
        return {t: node for node in self.nodes for t in node.outputs}

    @cached_property
    def _users(self) -> dict[int, tuple[Node, ...]]:
        users: dict[int, list[Node]] = {t: [] for t in self.tensors}
        for node in self.nodes:
            for t in dict.fromkeys(i for i in node.inputs if i >= 0):
                users[t].append(node)
        return {t: tuple(nodes) for t, nodes in users.items()}

    @cached_property
    def by_name(self) -> dict[str, Tensor]:
        """Tensors by their unique names."""
        return {t.name: t for t in self.tensors.values()}

    def producer(self, tensor: int) -> Node | None:
        """The node that writes ``tensor``; None for graph inputs and constants."""
        return self._producers.get(tensor)

    def users(self, tensor: int) -> tuple[Node, ...]:
        """The nodes that read ``tensor``, in execution order."""
        return self._users[tensor]

    def activations(self) -> list[Tensor]:
        """Graph inputs and node outputs in execution order: all that gets an activation scale."""
        ids = list(self.inputs) + [t for node in self.nodes for t in node.outputs]
        return [self.tensors[t] for t in ids]

    def check(self) -> None:
        """Verify that names are unique and every tensor is written once, before it is read.

        Raises:
            GraphError: with the node and the tensor concerned.
        """
        if len(self.by_name) != len(self.tensors):
            names = [t.name for t in self.tensors.values()]
            twice = sorted({n for n in names if names.count(n) > 1})
            raise GraphError(f"tensor names are not unique: {', '.join(twice[:5])}")
        known = set(self.inputs) | {t.id for t in self.tensors.values() if t.is_constant}
        for index, node in enumerate(self.nodes):
            for t in node.inputs:
                if t >= 0 and t not in known:
                    raise GraphError(f"node {index} {node.op} reads tensor {t} before it is written")
            for t in node.outputs:
                if t in known or t not in self.tensors:
                    raise GraphError(f"node {index} {node.op} writes tensor {t}, which is unknown or written already")
                known.add(t)
        missing = [t for t in self.outputs if t not in known]
        if missing:
            raise GraphError(f"graph outputs {missing} are never written")

    def constant(self, tensor: int) -> NDArray[Any]:
        """Values of a constant.

        Raises:
            GraphError: the tensor is an activation.
        """
        data = self.tensors[tensor].data
        if data is None:
            raise GraphError(f"tensor {self.tensors[tensor].name!r} is not a constant")
        return data
