"""SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND as RESHAPE, TRANSPOSE and RESHAPE, with PAD in front or SLICE behind.

XNNPACK has kernels for these, the quantizer knows them, and scales move through them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops._spec import NoAttrs
from qhyvit.ops.reshape import ReshapeAttrs
from qhyvit.rewrites._rewrite import Rewrite


class _Chain:
    """Copies that end in the output of ``node``; each is put in front of it."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph, self.node, self.last = graph, node, node.inputs[0]
        self.name = graph.tensors[node.outputs[0]].name

    def add(self, op: str, constants: Sequence[np.ndarray], shape: Sequence[int]) -> None:
        """One op more, which gives ``shape``."""
        inputs = [self.last]
        for data in constants:
            self.graph, t = edit.add_tensor(self.graph, f"{self.name}:in", data.shape, "INT32", data.astype(np.int32))
            inputs.append(t)
        dtype = self.graph.tensors[self.last].dtype
        self.graph, out = edit.add_tensor(self.graph, f"{self.name}.copy", shape, dtype)
        attrs = ReshapeAttrs(tuple(int(n) for n in shape)) if op == "RESHAPE" else NoAttrs()
        self.graph = edit.insert_before(self.graph, self.node, Node(op, attrs, tuple(inputs), (out,), self.node.block))
        self.last = out

    def reshape(self, *shape: int) -> None:
        """RESHAPE."""
        self.add("RESHAPE", [np.array(shape)], shape)

    def transpose(self, *axes: int) -> None:
        """TRANSPOSE."""
        before = self.graph.tensors[self.last].shape
        self.add("TRANSPOSE", [np.array(axes)], [before[a] for a in axes])

    def end(self) -> Graph:
        """The graph without ``node``, whose readers read the last copy."""
        made, out = self.graph.producer(self.last), self.node.outputs[0]
        assert made is not None
        graph = edit.replace_node(self.graph, made, replace(made, outputs=(out,)))
        tensors = {t: v for t, v in graph.tensors.items() if t != self.last}
        return replace(graph, tensors=tensors, nodes=tuple(n for n in graph.nodes if n is not self.node))


def _unfolded(graph: Graph, node: Node) -> Graph:
    (high, wide), pads = (graph.constant(t) for t in node.inputs[1:])
    chain = _Chain(graph, node)
    batch, height, width, channels = graph.tensors[node.inputs[0]].shape
    if pads.any():
        height, width = height + int(pads[0].sum()), width + int(pads[1].sum())
        chain.add("PAD", [np.array([[0, 0], *pads, [0, 0]])], (batch, height, width, channels))
    rows, columns = height // int(high), width // int(wide)
    if batch == 1:  # five axes are quicker than six
        chain.reshape(rows, int(high), columns, int(wide), channels)
        chain.transpose(1, 3, 0, 2, 4)
    else:
        chain.reshape(batch, rows, int(high), columns, int(wide), channels)
        chain.transpose(2, 4, 0, 1, 3, 5)
    chain.reshape(*graph.tensors[node.outputs[0]].shape)
    return chain.end()


def _folded(graph: Graph, node: Node) -> Graph:
    (high, wide), crops = (graph.constant(t) for t in node.inputs[1:])
    chain = _Chain(graph, node)
    many, rows, columns, channels = graph.tensors[node.inputs[0]].shape
    batch = many // int(high * wide)
    if batch == 1:
        chain.reshape(int(high), int(wide), rows, columns, channels)
        chain.transpose(2, 0, 3, 1, 4)
    else:
        chain.reshape(int(high), int(wide), batch, rows, columns, channels)
        chain.transpose(2, 3, 0, 4, 1, 5)
    chain.reshape(batch, rows * int(high), columns * int(wide), channels)
    if crops.any():
        shape = graph.tensors[node.outputs[0]].shape
        chain.add("SLICE", [np.array([0, crops[0][0], crops[1][0], 0]), np.array(shape)], shape)
    return chain.end()


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same copies."""
    for node in graph.nodes:
        if node.op == "SPACE_TO_BATCH_ND":
            graph = _unfolded(graph, node)
        elif node.op == "BATCH_TO_SPACE_ND":
            graph = _folded(graph, node)
    return graph


REWRITE = Rewrite("batches_as_copies", "SPACE_TO_BATCH_ND, BATCH_TO_SPACE_ND as copies", apply, order=-3)
