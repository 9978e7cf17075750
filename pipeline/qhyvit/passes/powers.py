"""Powers by constants become products and roots: x^2 is x * x, x^-0.5 RSQRT, x^-1 a quotient (see quotients)."""

from __future__ import annotations

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass

LARGEST = 4  # more products round more than a table would


def _exponent(graph: Graph, node: Node) -> float | None:
    """The exponent of a POW by one constant that is a multiple of a half."""
    if node.op != "POW" or not graph.tensors[node.inputs[1]].is_constant:
        return None
    values = graph.constant(node.inputs[1])
    power = float(values.ravel()[0])
    fits = (values == power).all() and (2 * power).is_integer() and 0 < abs(power) <= LARGEST
    return power if fits else None


def _made(graph: Graph, node: Node, power: float) -> Graph:
    chain, x = Chain(graph, node), node.inputs[0]
    if abs(power) == 0.5:
        return chain.instead("SQRT" if power > 0 else "RSQRT", x)
    factors = [x] * int(abs(power)) + ([chain.add("SQRT", x)] if power % 1 else [])
    total = factors[0]
    for factor in factors[1:-1] if power > 0 else factors[1:]:
        total = chain.add("MUL", total, factor)
    if power < 0:
        return chain.instead("DIV", chain.constant(1.0), total)
    if len(factors) == 1:
        return chain.instead("MUL", x, chain.constant(1.0))
    return chain.instead("MUL", total, factors[-1])


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for node in graph.nodes:
        power = _exponent(graph, node)
        if power is not None:
            graph = _made(graph, node, power)
    return graph


PASS = Pass("powers", "no POW by multiples of a half", apply)
