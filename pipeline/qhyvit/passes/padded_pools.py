"""A padded MAX_POOL_2D without minus infinity: SAME where that pads alike, zeros where none is negative, else edges.

A copy of the edge is never larger than what the window sees of the map itself, as padding is at most half a window.
"""

from __future__ import annotations

import numpy as np

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.conv import same_pads
from qhyvit.passes.shared.graph_pass import Pass, Phase
from qhyvit.passes.shared.signs import is_nonnegative

LOWEST = -1e30  # what is as low counts for nothing in a maximum


def is_padding(graph: Graph, node: Node) -> bool:
    """Whether ``node`` pads height and width of a map for pools alone, with what no maximum sees."""
    if node.op != "PADV2" or node.outputs[0] in graph.outputs or float(graph.constant(node.inputs[2])) > LOWEST:
        return False
    pads, users = graph.constant(node.inputs[1]), graph.users(node.outputs[0])
    pools = [u for u in users if u.op == "MAX_POOL_2D" and u.attrs.padding == "VALID"]
    fits = all((pads[1:3] <= np.array([u.attrs.kernel]).T // 2).all() for u in pools)
    return len(pads) == 4 and not pads[[0, 3]].any() and len(pools) == len(users) and fits


def _read_pads(graph: Graph, padding: Node, pool: Node) -> np.ndarray:
    """Pixels before and behind, [2, 2], that the pool's windows reach; the last one may end before the padding does."""
    pads, found = graph.constant(padding.inputs[1])[1:3], []
    sides = graph.tensors[padding.inputs[0]].shape[1:3], graph.tensors[pool.outputs[0]].shape[1:3]
    for (before, _), size, count, kernel, stride in zip(
        pads, *sides, pool.attrs.kernel, pool.attrs.stride, strict=True
    ):
        found.append([int(before), max((count - 1) * stride + kernel - size - int(before), 0)])
    return np.array(found)


def _is_same(graph: Graph, source: int, pool: Node, pads: np.ndarray) -> bool:
    sides = graph.tensors[source].shape[1:3], graph.tensors[pool.outputs[0]].shape[1:3]
    return all(
        -(-size // stride) == count and same_pads(size, kernel, stride, 1) == tuple(pair)
        for size, count, kernel, stride, pair in zip(*sides, pool.attrs.kernel, pool.attrs.stride, pads, strict=True)
    )


def _with_edges(chain: Chain, tensor: int, pads: np.ndarray) -> int:
    """``tensor`` [1, H, W, C] with its first and last row, and column, repeated as often as ``pads`` says."""
    for axis, (before, behind) in enumerate(pads.tolist(), start=1):
        shape, parts = chain.graph.tensors[tensor].shape, []
        for count, place in ((before, 0), (behind, shape[axis] - 1)):
            begin = [place if a == axis else 0 for a in range(4)]
            size = [1 if a == axis else s for a, s in enumerate(shape)]
            if count:
                edge = chain.add("SLICE", tensor, chain.constant(begin), chain.constant(size))
                parts.append([edge] * count)
            else:
                parts.append([])
        if parts != [[], []]:
            tensor = chain.add("CONCATENATION", *parts[0], tensor, *parts[1], axis=axis)
    return tensor


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for padding in graph.nodes:
        if not is_padding(graph, padding):
            continue
        source = padding.inputs[0]
        for pool in graph.users(padding.outputs[0]):
            pads, chain, attrs = _read_pads(graph, padding, pool), Chain(graph, pool), vars(pool.attrs)
            if _is_same(graph, source, pool, pads):
                graph = chain.instead("MAX_POOL_2D", source, **{**attrs, "padding": "SAME"})
            elif is_nonnegative(graph, source):
                zeros = chain.add("PAD", source, chain.constant([[0, 0], *pads.tolist(), [0, 0]]))
                graph = chain.instead("MAX_POOL_2D", zeros, **attrs)
            else:
                graph = chain.instead("MAX_POOL_2D", _with_edges(chain, source, pads), **attrs)
    return graph


PASS = Pass(
    "padded_pools",
    "no minus infinity around a map for its maximum",
    apply,
    phase=Phase.EXPORT,
    after=("channel_order", "exponentials"),
)
