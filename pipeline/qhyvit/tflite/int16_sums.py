"""Means in int16 islands as sums and a product with 1 / n; the mean of squares as a row's product with itself.

The runtime's int16 MEAN takes fifty times as long as its SUM. The product with itself adds the squares up in 64 bits:
rounded one by one, most squares would be lost beside that of a channel that is much larger than the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops._elementwise import ElementwiseAttrs
from qhyvit.ops._reduce import axes_of
from qhyvit.ops.batch_matmul import BatchMatMulAttrs
from qhyvit.ops.reshape import ReshapeAttrs


@dataclass
class _Before:
    """A graph that gets nodes in front of ``anchor``, all of them outside int8."""

    graph: Graph
    anchor: Node

    def add(self, name: str, shape: Sequence[int], op: str, attrs: object, inputs: tuple[int, ...]) -> int:
        """One node; the id of its output."""
        self.graph, out = edit.add_tensor(self.graph, name, shape, "FLOAT32")
        self.graph = edit.insert_before(self.graph, self.anchor, Node(op, attrs, inputs, (out,), self.anchor.block))
        self.graph = replace(self.graph, floats=self.graph.floats | {out})
        return out

    def reshape(self, name: str, source: int, shape: tuple[int, ...]) -> int:
        """``source`` in another shape; itself where it has it."""
        if self.graph.tensors[source].shape == shape:
            return source
        data = np.array(shape, np.int32)
        self.graph, size = edit.add_tensor(self.graph, f"{name}:shape", data.shape, "INT32", data)
        return self.add(name, shape, "RESHAPE", ReshapeAttrs(new_shape=shape), (source, size))


def _square_of(graph: Graph, mean: Node) -> Node | None:
    """The product of a tensor with itself that ``mean`` alone reads, to average over the last axis alone."""
    square, rank = graph.producer(mean.inputs[0]), len(graph.tensors[mean.inputs[0]].shape)
    if square is None or square.op != "MUL" or square.inputs[0] != square.inputs[1] or not graph.in_float(square):
        return None
    is_alone = graph.users(square.outputs[0]) == (mean,)
    return square if is_alone and axes_of(graph.constant(mean.inputs[1]), rank) == (rank - 1,) else None


def _as_sum(graph: Graph, mean: Node) -> Graph:
    source, out = graph.tensors[mean.inputs[0]], graph.tensors[mean.outputs[0]]
    count = math.prod(source.shape) // math.prod(out.shape)
    before, square = _Before(graph, mean), _square_of(graph, mean)
    if square is None:
        total = before.add(f"{out.name}.total", out.shape, "SUM", mean.attrs, mean.inputs)
    else:
        rows = (1, math.prod(out.shape), 1, source.shape[-1])
        row = before.reshape(f"{out.name}.row", square.inputs[0], rows)
        attrs = BatchMatMulAttrs(adj_y=True)
        squares = before.add(f"{out.name}.squares", (*rows[:3], 1), "BATCH_MATMUL", attrs, (row, row))
        total = before.reshape(f"{out.name}.total", squares, out.shape)
    share = np.full((1,) * max(len(out.shape), 1), 1 / count, np.float32)
    graph, factor = edit.add_tensor(before.graph, f"{out.name}.share", share.shape, "FLOAT32", share)
    product = replace(mean, op="MUL", attrs=ElementwiseAttrs(), inputs=(total, factor))
    graph = edit.replace_node(graph, mean, product)
    if square is None:
        return graph
    return edit.remove_node(replace(graph, floats=graph.floats.difference(square.outputs)), square)


def summed_in_int16(graph: Graph) -> Graph:
    """The graph with every MEAN that computes outside int8 replaced; the same values."""
    for node in graph.nodes:
        if node.op == "MEAN" and graph.in_float(node):
            graph = _as_sum(graph, node)
    return graph
