"""A mean or sum over more than 8192 neighbouring values becomes two: over the last axis, then over the others.

XNNPACK's int8 reduction for AVX2 adds pairs of codes in 16-bit lanes and empties them too late: from 8193 values on
they overflow where the codes' mean is beyond about 64, and the result is the lowest or highest code.
"""

from __future__ import annotations

import math

import numpy as np

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.reduce import axes_of
from qhyvit.passes.shared.graph_pass import Pass

REDUCTIONS = ("MEAN", "SUM")
LONGEST = 8192


def neighbours(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """How many values beside each other in memory go into one result; 1 if the last axis stays."""
    count = 1
    for axis in reversed(range(len(shape))):
        if axis not in axes and shape[axis] > 1:
            break
        count *= shape[axis]
    return count


def _split(graph: Graph, node: Node) -> Graph:
    last, chain = len(graph.tensors[node.inputs[0]].shape) - 1, Chain(graph, node)
    axes = axes_of(graph.constant(node.inputs[1]), last + 1)
    # where axes go, the last one, of length 1 by then, goes with the others
    rest = [a for a in axes if a != last or not node.attrs.keep_dims]
    rows = chain.add(node.op, node.inputs[0], chain.constant([last]), keep_dims=True)
    return chain.instead(node.op, rows, chain.constant(np.array(rest, np.int32)), **vars(node.attrs))


def apply(graph: Graph) -> Graph:
    """Value-preserving: the mean of means of equally many values."""
    for node in graph.nodes:
        if node.op not in REDUCTIONS:
            continue
        shape = graph.tensors[node.inputs[0]].shape
        axes = axes_of(graph.constant(node.inputs[1]), len(shape))
        if neighbours(shape, axes) > LONGEST and math.prod(shape[:-1]) > 1:
            graph = _split(graph, node)
    return graph


PASS = Pass("short_reductions", "no mean or sum over more than 8192 neighbouring values", apply)
