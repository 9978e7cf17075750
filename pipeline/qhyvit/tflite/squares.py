"""Sums of squares in float islands as MUL and SUM.

In int8 a row's product with itself keeps the sum in the 32-bit accumulator. In float nothing is won by it, and XNNPACK
first packs the right operand for sixteen columns, of which one is used.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.work import is_sum_of_squares
from qhyvit.ops._elementwise import ElementwiseAttrs
from qhyvit.ops._reduce import ReducerAttrs
from qhyvit.plan import QuantPlan


def _added(graph: Graph, node: Node) -> Graph:
    row, out = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    graph, square = edit.add_tensor(graph, f"{out.name}.square", row.shape, row.dtype)
    axis = np.array([len(row.shape) - 1], np.int32)
    graph, axes = edit.add_tensor(graph, f"{out.name}.axes", axis.shape, "INT32", axis)
    graph = edit.insert_before(graph, node, Node("MUL", ElementwiseAttrs(), (row.id, row.id), (square,), node.block))
    total = replace(node, op="SUM", attrs=ReducerAttrs(keep_dims=True), inputs=(square, axes))
    return replace(edit.replace_node(graph, node, total), floats=graph.floats | {square})


def as_written(graph: Graph, plan: QuantPlan) -> Graph:
    """The graph as the file has it: int16 kernels add squares up in 64 bits and are left as they are."""
    return graph if plan.int16 else added_in_float(graph)


def added_in_float(graph: Graph) -> Graph:
    """The graph with every BATCH_MATMUL of a row with itself that computes in float replaced; the same values."""
    for node in graph.nodes:
        if node.outputs[0] in graph.floats - graph.wide and is_sum_of_squares(graph, node):
            graph = _added(graph, node)
    return graph
