"""A matrix product reads its right operand by rows, [.., N, K], where it lay as [.., K, N].

XNNPACK packs the right operand at every inference. Its int8 routine for [.., K, N] takes up to twenty times as long as
the one for [.., N, K], more than the transpose costs; in float both take the same. A transpose that is there already
takes it on.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops._spec import NoAttrs
from qhyvit.ops.reshape import ReshapeAttrs
from qhyvit.rewrites._rewrite import Rewrite

LEAST = 2048  # elements: an op more costs a microsecond, packing so many by columns twice that


def _by_columns(graph: Graph, node: Node) -> bool:
    """Whether ``node`` packs a right operand that is made at run time and lies as [.., K, N], N > 1, and that pays."""
    if node.op != "BATCH_MATMUL" or node.attrs.adj_y or node.inputs[0] == node.inputs[1]:
        return False
    right, made = graph.tensors[node.inputs[1]], graph.producer(node.inputs[1])
    turned_already = made is not None and made.op == "TRANSPOSE" and len(graph.users(right.id)) == 1
    return not right.is_constant and right.shape[-1] > 1 and (turned_already or math.prod(right.shape) >= LEAST)


def _rows_of(graph: Graph, right: int, before: Node) -> tuple[Graph, int]:
    """[.., K, N] as [.., N, K], made in front of ``before``."""
    source, axes, made = graph.tensors[right], list(range(len(graph.tensors[right].shape))), graph.producer(right)
    name = source.name
    if made is not None and made.op == "TRANSPOSE":
        source, axes = graph.tensors[made.inputs[0]], [int(a) for a in graph.constant(made.inputs[1])]
    axes = [*axes[:-2], axes[-1], axes[-2]]
    if axes == sorted(axes):
        return graph, source.id
    order = np.array(axes, np.int32)
    graph, axes_id = edit.add_tensor(graph, f"{name}.rows:axes", order.shape, "INT32", order)
    graph, rows = edit.add_tensor(graph, f"{name}.rows", tuple(source.shape[a] for a in axes), source.dtype)
    turn = Node("TRANSPOSE", NoAttrs(), (source.id, axes_id), (rows,), before.block)
    graph = edit.insert_before(graph, before, turn)
    is_swap = axes[:-2] == sorted(axes[:-2]) and axes[-2:] == [len(axes) - 1, len(axes) - 2]
    return _apart(graph, rows, before) if is_swap else (graph, rows)


def _apart(graph: Graph, tensor: int, before: Node) -> tuple[Graph, int]:
    """``tensor`` again, behind a RESHAPE that leaves its shape as it is.

    XNNPACK joins a product and a transpose that swaps the last two axes right in front of it: by columns once more.
    """
    source = graph.tensors[tensor]
    data = np.array(source.shape, np.int32)
    graph, shape = edit.add_tensor(graph, f"{source.name}.apart:shape", data.shape, "INT32", data)
    graph, out = edit.add_tensor(graph, f"{source.name}.apart", source.shape, source.dtype)
    same = Node("RESHAPE", ReshapeAttrs(), (tensor, shape), (out,), before.block)
    return edit.insert_before(graph, before, same), out


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same sums of the same products."""
    rows: dict[int, int] = {}
    for node in graph.nodes:
        if not _by_columns(graph, node):
            continue
        left, right = node.inputs
        if right not in rows:
            graph, rows[right] = _rows_of(graph, right, node)
        turned = replace(node, attrs=replace(node.attrs, adj_y=True), inputs=(left, rows[right]))
        graph = edit.replace_node(graph, node, turned)
    for right in rows:
        made = graph.producer(right)
        if made is not None and made.op == "TRANSPOSE" and not graph.users(right) and right not in graph.outputs:
            graph = edit.remove_node(graph, made)
    return graph


# behind the rewrite that copies right operands: the copies end in what this one turns
REWRITE = Rewrite("right_rows", "matrix products read their right operand by rows", apply, order=1)
