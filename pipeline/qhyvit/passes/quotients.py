"""Quotients become products: int8 DIV is wrong in LiteRT (see ops/div.py), products and RSQRT are right.

x / y is x * (1 / y) wherever 1 / y has a form of its own: of a constant; of a root, 1 / sqrt(s) = rsqrt(s); of a root
that is kept from 0, max(sqrt(s), c) or sqrt(s) + c, which is rsqrt(s + c^2) but where the root is of the size of c,
1e-12 in torch's normalize; of a product with a constant; and of what is moved or repeated of these. |y| * |y| is y * y.
"""

from __future__ import annotations

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import copying
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.spec import Copies
from qhyvit.passes.shared.graph_pass import Pass

# of the square of a norm; a smaller constant would be lost in float32 and have no grid
LEAST_EPS = 1e-12
LARGEST_FLOOR = 1e-4  # of a norm; above, it is no guard against zero, but a value
MOVES = copying(Copies.ONCE, Copies.REPEATED)


def _operands(graph: Graph, node: Node) -> tuple[int, int] | None:
    """(activation, constant) of an op with one of each, in either order."""
    known = [t for t in node.inputs if graph.tensors[t].is_constant]
    others = [t for t in node.inputs if t not in known]
    return (others[0], known[0]) if len(known) == len(others) == 1 else None


def _floor(graph: Graph, node: Node) -> tuple[int, float] | None:
    """y and c where ``node`` is max(y, c) or y + c, c so small that it only guards against 0."""
    pair = _operands(graph, node) if node.op in ("MAXIMUM", "ADD") else None
    if pair is None:
        return None
    values = graph.constant(pair[1])
    small = bool((values >= 0).all() and (values <= LARGEST_FLOOR).all()) and np.ptp(values) == 0
    same = graph.tensors[pair[0]].shape == graph.tensors[node.outputs[0]].shape
    return (pair[0], float(values.ravel()[0])) if small and same else None


def _has_inverse(graph: Graph, tensor: int) -> bool:
    """Whether :func:`_inverse` can make 1 / ``tensor``."""
    node = graph.producer(tensor)
    if graph.tensors[tensor].is_constant:
        return bool((graph.constant(tensor) != 0).all())
    if node is None or getattr(node.attrs, "fused_activation_function", "NONE") != "NONE":
        return False
    if node.op == "SQRT":
        return True
    floored = _floor(graph, node)
    if floored is not None:
        return _is_root(graph, floored[0])
    if node.op == "MUL":
        return all(_has_inverse(graph, t) for t in node.inputs)
    return node.op in MOVES and _has_inverse(graph, node.inputs[0])


def _is_root(graph: Graph, tensor: int) -> bool:
    """Whether ``tensor`` is a SQRT, moved, floored or neither."""
    node = graph.producer(tensor)
    if node is None or node.op == "SQRT":
        return node is not None
    floored = _floor(graph, node)
    return _is_root(graph, node.inputs[0] if floored is None else floored[0]) if node.op in MOVES or floored else False


def _inverse(chain: Chain, tensor: int, floor: float = 0.0) -> int:
    """1 / ``tensor``; a root below is kept from 0 by ``floor``."""
    graph = chain.graph
    if graph.tensors[tensor].is_constant:
        return chain.constant((1.0 / graph.constant(tensor).astype(np.float64)).astype(np.float32))
    node = graph.producer(tensor)
    assert node is not None
    floored = _floor(graph, node)
    if node.op == "SQRT":
        return chain.add("RSQRT", _guarded(chain, node.inputs[0], floor))
    if floored is not None:
        return _inverse(chain, floored[0], floor + floored[1])
    parts = [_inverse(chain, t, floor) for t in (node.inputs if node.op == "MUL" else node.inputs[:1])]
    inputs = parts if node.op == "MUL" else [*parts, *node.inputs[1:]]
    return chain.add(node.op, *inputs, **vars(node.attrs))


def _guarded(chain: Chain, square: int, floor: float) -> int:
    """``square`` plus the square of a floor, or plus next to nothing where it is a sum with no floor of its own."""
    made = chain.graph.producer(square)
    pair = _operands(chain.graph, made) if made is not None and made.op in ("ADD", "MAXIMUM") else None
    if pair is not None and floor == 0.0 and (chain.graph.constant(pair[1]) >= LEAST_EPS).all():
        return square
    return chain.add("ADD", square, chain.constant(max(floor * floor, LEAST_EPS)))


def _is_square_of_abs(graph: Graph, node: Node) -> bool:
    producer = graph.producer(node.inputs[0]) if node.op == "MUL" else None
    return producer is not None and node.inputs[0] == node.inputs[1] and producer.op == "ABS"


def apply(graph: Graph) -> Graph:
    """See above."""
    for node in graph.nodes:
        if node.op == "DIV" and _has_inverse(graph, node.inputs[1]):
            chain = Chain(graph, node)
            graph = chain.instead("MUL", node.inputs[0], _inverse(chain, node.inputs[1]), **vars(node.attrs))
        elif _is_square_of_abs(graph, node):
            absolute = graph.producer(node.inputs[0])
            assert absolute is not None
            graph = Chain(graph, node).instead("MUL", *absolute.inputs * 2, **vars(node.attrs))
    return _without_ones(graph)


def _without_ones(graph: Graph) -> Graph:
    """No product with a constant of ones that is as it is without: 1 / sqrt(s) was a quotient."""
    for t in [n.outputs[0] for n in graph.nodes if n.op == "MUL" and n.outputs[0] not in graph.outputs]:
        node = graph.producer(t)  # as it is now: what it reads may have been one of those products
        pair = None if node is None else _operands(graph, node)
        if node is None or pair is None or getattr(node.attrs, "fused_activation_function", "NONE") != "NONE":
            continue
        same = graph.tensors[pair[0]].shape == graph.tensors[node.outputs[0]].shape
        if same and (graph.constant(pair[1]) == 1).all():
            graph = edit.bypassed(graph, node, pair[0])
    return graph


PASS = Pass("quotients", "no DIV by a constant or a norm", apply, after=("powers",))
