"""Forms of the norms in a graph: each is one product with 1 / r, or a longer form that loses more in int8."""

from __future__ import annotations

from dataclasses import dataclass

from qhyvit.graph.ir import Graph, Node
from qhyvit.methods.shared.patterns import before, behind


@dataclass(frozen=True)
class Forms:
    """How many norms have each form; ``long``: the mean is taken off behind the product with 1 / r, and not before."""

    short: int
    long: int


def forms(graph: Graph) -> Forms:
    """Count the roots of a graph by what is multiplied by them."""
    long = [_is_long(graph, node) for node in graph.nodes if node.op == "RSQRT"]
    return Forms(long.count(False), long.count(True))


def _is_long(graph: Graph, root: Node) -> bool:
    products = [node for node in behind(graph, root.outputs[0]) if node.op == "MUL"]
    factors = [before(graph, t) for node in products for t in node.inputs if before(graph, t) != root.outputs[0]]
    makers = [graph.producer(t) for t in factors]
    return len(products) > 1 or any(maker is not None and maker.op == "MEAN" for maker in makers)
