"""Norms whose statistics need more than 8 bits are taken twice.

A norm's variance is one number a token. Where tokens differ a thousandfold, one int8 scale holds the large ones and
rounds the small ones to nothing. But normalising twice is normalising once: with p = 1 / sqrt(v + eps),

    y = x p = x p / sqrt(mean((x p)^2) + eps p^2),

because the second root is 1. In int8 it is not: it is what the first one lost, and near 1 it has all 8 bits. All ops are
int8 ops of XNNPACK but the root, and all but three are of one number a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.ops._elementwise import ElementwiseAttrs


@dataclass(frozen=True)
class TokenNorm:
    """A norm with one variance a token, in the order of its ops.

    ``square``: product of the centred tensor with itself; ``variance``: its mean, or a linear in its place; ``total``:
    eps added; ``root``: 1 / sqrt; ``product``: of the centred tensor with it.
    """

    square: Node
    variance: Node
    total: Node
    root: Node
    product: Node

    @property
    def statistics(self) -> tuple[int, ...]:
        """Tensors with one number a token."""
        return tuple(n.outputs[0] for n in (self.variance, self.total, self.root))


def token_norms(graph: Graph) -> list[TokenNorm]:
    """Every norm over the last axis whose eps is a constant and whose root one product reads."""
    found = [_token_norm(graph, node) for node in graph.nodes if node.op == "RSQRT"]
    return [n for n in found if n is not None]


def _token_norm(graph: Graph, root: Node) -> TokenNorm | None:
    total, users = graph.producer(root.inputs[0]), graph.users(root.outputs[0])
    if total is None or total.op != "ADD" or len(users) != 1 or users[0].op != "MUL":
        return None
    variance, (product,) = graph.producer(total.inputs[0]), users
    square = None if variance is None else graph.producer(variance.inputs[0])
    if variance is None or square is None or square.op != "MUL" or square.inputs[0] != square.inputs[1]:
        return None
    shape = graph.tensors[square.outputs[0]].shape
    rows = (*shape[:-1], 1)
    fits = variance.op in ("MEAN", "FULLY_CONNECTED") and graph.tensors[variance.outputs[0]].shape == rows
    constant = graph.tensors[total.inputs[1]].is_constant
    reads = product.inputs == (square.inputs[0], root.outputs[0]) and rows[:-1] != (1,) * (len(rows) - 1)
    is_new = graph.producer(square.inputs[0]) is None or not _is_normalised(graph, square.inputs[0])
    return TokenNorm(square, variance, total, root, product) if fits and constant and reads and is_new else None


def _is_normalised(graph: Graph, tensor: int) -> bool:
    """Whether ``tensor`` is a first norm's result already."""
    made = graph.producer(tensor)
    roots = [graph.producer(t) for t in made.inputs] if made is not None and made.op == "MUL" else []
    return any(r is not None and r.op == "RSQRT" for r in roots)


def taken_twice(graph: Graph, norm: TokenNorm) -> Graph:
    """The graph with the norm's result normalised once more; equal in float."""
    product, name = norm.product, graph.tensors[norm.product.outputs[0]].name
    whole, rows = graph.tensors[product.outputs[0]], graph.tensors[norm.root.outputs[0]]
    eps = graph.constant(norm.total.inputs[1]).astype(np.float64)
    root_eps = np.ascontiguousarray(np.broadcast_to(np.sqrt(eps), rows.shape), np.float32)
    graph, factor = edit.add_tensor(graph, f"{name}.root_eps", rows.shape, "FLOAT32", root_eps)
    ids = {}
    for label, shape in (("first", whole.shape), ("square.2", whole.shape), *((n, rows.shape) for n in ROWS)):
        graph, ids[label] = edit.add_tensor(graph, f"{name}.{label}", shape, whole.dtype)
    graph, again = _same_mean(graph, norm.variance, ids["square.2"], ids["variance.2"])
    plain, p = ElementwiseAttrs(), norm.root.outputs[0]
    nodes = (
        Node("MUL", plain, product.inputs, (ids["first"],), product.block),
        Node("MUL", plain, (ids["first"], ids["first"]), (ids["square.2"],), product.block),
        again,
        Node("MUL", plain, (p, factor), (ids["share"],), product.block),
        Node("MUL", plain, (ids["share"], ids["share"]), (ids["eps.2"],), product.block),
        Node("ADD", plain, (ids["variance.2"], ids["eps.2"]), (ids["sum.2"],), product.block),
        Node("RSQRT", spec("RSQRT").attrs(), (ids["sum.2"],), (ids["root.2"],), product.block),
    )
    for node in nodes:
        graph = edit.insert_before(graph, product, node)
    last = Node("MUL", plain, (ids["first"], ids["root.2"]), product.outputs, product.block)
    return edit.replace_node(graph, product, last)


ROWS = ("variance.2", "share", "eps.2", "sum.2", "root.2")


def _same_mean(graph: Graph, variance: Node, source: int, out: int) -> tuple[Graph, Node]:
    """The op that averages the squares, once more, with constants of its own."""
    inputs = [source]
    for t in variance.inputs[1:]:
        old = graph.tensors[t]
        graph, copy = edit.add_tensor(graph, old.name, old.shape, old.dtype, old.data)
        inputs.append(copy)
    return graph, Node(variance.op, variance.attrs, tuple(inputs), (out,), variance.block)


def all_twice(graph: Graph, norms: Sequence[TokenNorm]) -> Graph:
    """All of ``norms`` taken twice."""
    for norm in norms:
        graph = taken_twice(graph, norm)
    return graph
