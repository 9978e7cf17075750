"""Kernels that prescribe the grid of what they give (SOFTMAX, LOGISTIC) do not force it on others, nor are they forced.

Such a result as the right operand of a product, which needs zero point 0, becomes its left one: A B = (B^T A^T)^T. One
that is joined with other values, which would have to lie on its grid, is copied: a sum with 0 has a range of its own.
"""

from __future__ import annotations

from dataclasses import replace

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.ops.shared.chain import Chain, swap
from qhyvit.ops.shared.spec import Fixed, Tied
from qhyvit.passes.shared.graph_pass import Pass


def _grid(graph: Graph, tensor: int) -> Fixed | None:
    """The grid that the op behind ``tensor`` prescribes, through ops with one operand that only move codes."""
    node = graph.producer(tensor)
    contract = None if node is None else spec(node.op).out
    if node is None or isinstance(contract, Fixed):
        return contract if isinstance(contract, Fixed) else None
    return _grid(graph, _tied(graph, node)[0]) if len(_tied(graph, node)) == 1 else None


def _tied(graph: Graph, node: Node) -> list[int]:
    """Operands that share their grid with the result."""
    contract = spec(node.op).out
    if not isinstance(contract, Tied):
        return []
    positions = range(len(node.inputs)) if contract.inputs is None else contract.inputs
    return [node.inputs[i] for i in positions if graph.tensors[node.inputs[i]].dtype == "FLOAT32"]


def _needs_zero(graph: Graph, tensor: int) -> bool:
    grid = _grid(graph, tensor)
    return grid is not None and grid.zero_point != 0


def _turned(graph: Graph, tensor: int) -> int | None:
    """What ``tensor`` is, with the last two axes exchanged."""
    node, rank = graph.producer(tensor), len(graph.tensors[tensor].shape)
    if node is None or node.op != "TRANSPOSE":
        return None
    return node.inputs[0] if graph.constant(node.inputs[1]).tolist() == swap(rank) else None


def _exchanged(graph: Graph, product: Node) -> Graph:
    chain, (left, right), rank = Chain(graph, product), product.inputs, len(graph.tensors[product.outputs[0]].shape)
    before, adj_x = _turned(graph, right), not product.attrs.adj_y
    left_now = right if before is None else before
    other = chain.add(
        "BATCH_MATMUL", left_now, left, adj_x=adj_x if before is None else not adj_x, adj_y=not product.attrs.adj_x
    )
    return chain.instead("TRANSPOSE", other, chain.constant(swap(rank)))


def _copied(graph: Graph, node: Node, tensor: int) -> tuple[Graph, Node]:
    chain = Chain(graph, node)
    copy = chain.add("ADD", tensor, chain.constant(0.0))
    new = replace(node, inputs=tuple(copy if t == tensor else t for t in node.inputs))
    return edit.replace_node(chain.graph, node, new), new


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for node in graph.nodes:
        if node.op == "BATCH_MATMUL" and _needs_zero(graph, node.inputs[1]):
            if _needs_zero(graph, node.inputs[0]):
                graph, _ = _copied(graph, node, node.inputs[1])
            else:
                graph = _exchanged(graph, node)
            continue
        grids = {t: _grid(graph, t) for t in _tied(graph, node)}
        if len(set(grids.values())) > 1:
            for tensor in (t for t, grid in grids.items() if grid is not None):
                graph, node = _copied(graph, node, tensor)
    return graph


PASS = Pass(
    "prescribed_ranges",
    "no grid that a kernel prescribes binds other values",
    apply,
    after=("matrix_product",),
)
