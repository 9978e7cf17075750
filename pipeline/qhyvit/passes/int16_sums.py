"""Means in int16 islands as sums and a product with 1 / n; the mean of squares as a row's product with itself.

The runtime's int16 MEAN takes fifty times as long as its SUM. The product with itself adds the squares up in 64 bits:
rounded one by one, most squares would be lost beside that of a channel that is much larger than the others.
"""

from __future__ import annotations

import math

import numpy as np

from qhyvit.graph.ir import INT16, Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.reduce import axes_of
from qhyvit.passes.shared.graph_pass import Pass, Phase


def _square_of(graph: Graph, mean: Node) -> Node | None:
    """The product of a tensor with itself that ``mean`` alone reads, to average over the last axis alone."""
    square, rank = graph.producer(mean.inputs[0]), len(graph.tensors[mean.inputs[0]].shape)
    if square is None or square.op != "MUL" or square.inputs[0] != square.inputs[1] or not square.in_island:
        return None
    is_alone = graph.users(square.outputs[0]) == (mean,)
    return square if is_alone and axes_of(graph.constant(mean.inputs[1]), rank) == (rank - 1,) else None


def _as_sum(graph: Graph, mean: Node) -> Graph:
    source, out = graph.tensors[mean.inputs[0]], graph.tensors[mean.outputs[0]]
    count = math.prod(source.shape) // math.prod(out.shape)
    chain, square = Chain(graph, mean, alike=True), _square_of(graph, mean)
    if square is None:
        total = chain.add("SUM", *mean.inputs, **vars(mean.attrs))
    else:
        row = _shaped(chain, square.inputs[0], (1, math.prod(out.shape), 1, source.shape[-1]))
        total = _shaped(chain, chain.add("BATCH_MATMUL", row, row, adj_y=True), out.shape)
    share = np.full((1,) * max(len(out.shape), 1), 1 / count)
    return chain.instead("MUL", total, chain.constant(share))


def _shaped(chain: Chain, tensor: int, shape: tuple[int, ...]) -> int:
    """``tensor`` in another shape; itself where it has it."""
    return tensor if chain.graph.tensors[tensor].shape == shape else chain.reshape(tensor, *shape)


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for node in graph.nodes:
        if node.op == "MEAN" and node.writes == INT16:
            graph = _as_sum(graph, node)
    return graph


PASS = Pass("int16_sums", "means in int16 are sums", apply, phase=Phase.LOWERED, after=("equal_nodes",))
