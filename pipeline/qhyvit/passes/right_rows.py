"""A matrix product reads its right operand by rows, [.., N, K], where it lay as [.., K, N].

XNNPACK packs the right operand at every inference. Its int8 routine for [.., K, N] takes up to twenty times as long as
the one for [.., N, K], more than the transpose costs; in float both take the same. A transpose that is there already
takes it on.
"""

from __future__ import annotations

import math
from dataclasses import replace

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.profile import SIZES, Sizes
from qhyvit.ops.shared.chain import Chain, swap
from qhyvit.passes.shared.graph_pass import Pass


def _by_columns(graph: Graph, node: Node, least: int) -> bool:
    """Whether ``node`` packs a right operand that is made at run time and lies as [.., K, N], N > 1, and that pays."""
    if node.op != "BATCH_MATMUL" or node.attrs.adj_y or node.inputs[0] == node.inputs[1]:
        return False
    right, made = graph.tensors[node.inputs[1]], graph.producer(node.inputs[1])
    turned_already = made is not None and made.op == "TRANSPOSE" and len(graph.users(right.id)) == 1
    return not right.is_constant and right.shape[-1] > 1 and (turned_already or math.prod(right.shape) >= least)


def _rows_of(graph: Graph, right: int, before: Node) -> tuple[Graph, int]:
    """[.., K, N] as [.., N, K], made in front of ``before``.

    XNNPACK joins a product and a transpose that swaps the last two axes right in front of it: by columns once more. A
    RESHAPE that leaves the shape as it is keeps them apart.
    """
    source, axes, made = right, list(range(len(graph.tensors[right].shape))), graph.producer(right)
    if made is not None and made.op == "TRANSPOSE":
        source, axes = made.inputs[0], graph.constant(made.inputs[1]).tolist()
    axes = [*axes[:-2], axes[-1], axes[-2]]
    if axes == sorted(axes):
        return graph, source
    chain = Chain(graph, before)
    rows = chain.transpose(source, *axes)
    if axes == swap(len(axes)):
        rows = chain.reshape(rows, *chain.graph.tensors[rows].shape)
    return chain.graph, rows


def apply(graph: Graph, sizes: Sizes = SIZES) -> Graph:
    """Value-preserving: the same sums of the same products."""
    rows: dict[int, int] = {}
    for node in graph.nodes:
        if not _by_columns(graph, node, sizes.columns):
            continue
        left, right = node.inputs
        if right not in rows:
            graph, rows[right] = _rows_of(graph, right, node)
        turned = replace(node, attrs=replace(node.attrs, adj_y=True), inputs=(left, rows[right]))
        graph = edit.replace_node(graph, node, turned)
    return edit.without_unread(graph)


PASS = Pass(
    "right_rows",
    "matrix products read their right operand by rows",
    apply,
    after=("one_reshape", "own_layers", "own_right_operand"),
    sized=apply,
)
