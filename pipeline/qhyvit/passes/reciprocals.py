"""What is left of quotients, x / y, as products with roots: x * r * r with r = 1 / sqrt(y), where y is never negative.

Each product is rounded on a range as wide as its values; of r * r alone, as wide as y is small, few codes would be
left. Where y may be negative it is (x * r) * (y * r) with r = 1 / sqrt(y * y): the second factor is its sign.
"""

from __future__ import annotations

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass
from qhyvit.passes.shared.signs import is_nonnegative


def _made(graph: Graph, node: Node) -> Graph:
    chain, (x, y) = Chain(graph, node), node.inputs
    if is_nonnegative(graph, y):
        root = chain.add("RSQRT", y)
        return chain.instead("MUL", chain.add("MUL", x, root), root, **vars(node.attrs))
    root = chain.add("RSQRT", chain.add("MUL", y, y))
    return chain.instead("MUL", chain.add("MUL", x, root), chain.add("MUL", y, root), **vars(node.attrs))


def apply(graph: Graph) -> Graph:
    """Value-preserving but where y is 0."""
    for node in graph.nodes:
        if node.op == "DIV":
            graph = _made(graph, node)
    return graph


PASS = Pass(
    "reciprocals",
    "no DIV of two activations",
    apply,
    only=lambda target: not target.floats,
    after=("powers", "quotients"),
)
