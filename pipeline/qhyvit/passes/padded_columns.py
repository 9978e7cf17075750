"""A column that a product takes from ones beside its right operand becomes a sum of its left one.

Linear attention pads its values with a column of ones, so that one product gives sums weighted by values and the sums
of the weights, and takes them apart behind: q (k^T [v, 1]). As int8 both would have one scale, though nothing relates
them; and that the sums of weights are not negative shows only where they are apart.
"""

from __future__ import annotations

import numpy as np

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass


def _cut(graph: Graph, node: Node) -> tuple[int, int] | None:
    """Begin and size of the columns that a SLICE takes, where it takes all of every other axis."""
    if node.op != "SLICE":
        return None
    before, after = (graph.tensors[t].shape for t in (node.inputs[0], node.outputs[0]))
    if before[:-1] != after[:-1] or before == after:
        return None
    return int(graph.constant(node.inputs[1])[-1]), after[-1]


def _source(graph: Graph, tensor: int) -> int | None:
    """What ``tensor`` gets its columns from, column by column: through products and RESHAPEs of the other axes."""
    node = graph.producer(tensor)
    if node is None:
        return None
    if node.op == "BATCH_MATMUL" and not node.attrs.adj_y:
        return node.inputs[1]
    same = graph.tensors[node.inputs[0]].shape[-1:] == graph.tensors[tensor].shape[-1:]
    return node.inputs[0] if node.op == "RESHAPE" and same else None


def _padding(graph: Graph, tensor: int, products: int = 0) -> Node | None:
    """The PAD or PADV2 of the last axis behind at least one product."""
    node, source = graph.producer(tensor), _source(graph, tensor)
    if node is None:
        return None
    if source is not None:
        return _padding(graph, source, products + (node.op == "BATCH_MATMUL"))
    is_pad = node.op in ("PAD", "PADV2") and products and not graph.constant(node.inputs[1])[:-1].any()
    return node if is_pad else None


def _columns(chain: Chain, tensor: int, begin: int, size: int, padding: Node) -> int:
    """The columns of ``tensor``, made of those of what it is made of."""
    graph, node = chain.graph, chain.graph.producer(tensor)
    assert node is not None
    if node is padding:
        return _of_padding(chain, padding, begin, size)
    source = _source(graph, tensor)
    assert source is not None
    part = _columns(chain, source, begin, size, padding)
    if node.op == "BATCH_MATMUL" and chain.graph.tensors[part].is_constant:
        axis = len(graph.tensors[node.inputs[0]].shape) - (2 if node.attrs.adj_x else 1)
        total = chain.add("SUM", node.inputs[0], chain.constant([axis]), keep_dims=True)
        return chain.reshape(total, *graph.tensors[tensor].shape[:-1], 1) if node.attrs.adj_x else total
    if node.op == "BATCH_MATMUL":
        return chain.add("BATCH_MATMUL", node.inputs[0], part, adj_x=node.attrs.adj_x)
    return chain.reshape(part, *graph.tensors[tensor].shape[:-1], size)


def _of_padding(chain: Chain, padding: Node, begin: int, size: int) -> int:
    source = padding.inputs[0]
    shape, before = chain.graph.tensors[source].shape, int(chain.graph.constant(padding.inputs[1])[-1, 0])
    if not before <= begin < before + shape[-1]:
        return chain.constant(np.ones((*shape[:-1], size)))
    if (begin, size) == (before, shape[-1]):
        return source
    first = [*[0] * (len(shape) - 1), begin - before]
    return chain.add("SLICE", source, chain.constant(first), chain.constant([*shape[:-1], size]))


def _fits(graph: Graph, padding: Node, begin: int, size: int) -> bool:
    """Whether it is one column of ones, or columns of what is padded."""
    before = int(graph.constant(padding.inputs[1])[-1, 0])
    end = before + graph.tensors[padding.inputs[0]].shape[-1]
    ones = padding.op == "PADV2" and float(graph.constant(padding.inputs[2]).item()) == 1.0 and size == 1
    return (ones and not before <= begin < end) or (begin >= before and begin + size <= end)


def apply(graph: Graph) -> Graph:
    """Value-preserving: a column of a product is made of one column of its right operand."""
    for node in graph.nodes:
        cut = _cut(graph, node)
        padding = _padding(graph, node.inputs[0]) if cut is not None else None
        if cut is None or padding is None or not _fits(graph, padding, *cut):
            continue
        chain = Chain(graph, node)
        part = _columns(chain, node.inputs[0], *cut, padding)
        graph = chain.replaced_by(part)
    return graph


PASS = Pass("padded_columns", "columns that come from padding with ones are sums", apply)
