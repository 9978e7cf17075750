"""1 / sqrt(v) in int16 islands in two parts, where the values of v lie far apart.

The runtime's int16 RSQRT interpolates between 1 / sqrt of every 128th code: right within 0.2 % from code 1024 on, 0.4 %
from 512 on, and nonsense below 128. With v1 = max(v, L) and v2 = min(v, L),
1 / sqrt(v) = 1 / sqrt(v1) + 1 / sqrt(v2) - 1 / sqrt(L), and each part has all codes for its own range. The squares are
summed a second time for v2, whose int16 saturates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain

HEADROOM = 2.0  # what other images may have beyond the largest value of those that calibrate
FAR = 16.0  # largest over smallest value that one root serves: codes 1024 to 16384
RELU = {"fused_activation_function": "RELU"}


def ops_before_root(graph: Graph, root: Node) -> list[Node]:
    """The nodes from a sum of squares to the RSQRT ``root``, in order: each scales it or adds an eps; [] if not so."""
    found: list[Node] = []
    node = graph.producer(root.inputs[0])
    while node is not None and node.op in ("ADD", "MUL", "RESHAPE"):
        found.append(node)
        if node.op != "RESHAPE" and not _positive(graph, node):
            return []
        node = graph.producer(_operand(graph, node))
    return [node, *reversed(found)] if node is not None and (_is_sum(node) or node.op == "MEAN") else []


def _is_sum(node: Node) -> bool:
    """Whether ``node`` sums squares in a product."""
    return node.op == "BATCH_MATMUL" and node.inputs[0] == node.inputs[1]


def _operand(graph: Graph, node: Node) -> int:
    """The input of ``node`` that is no constant; -1 where none or more are not."""
    found = [t for t in node.inputs if not graph.tensors[t].is_constant]
    return found[0] if len(found) == 1 else -1


def _positive(graph: Graph, node: Node) -> bool:
    """Whether the constant that ``node`` reads is one number, and not below 0."""
    constants = [graph.constant(t) for t in node.inputs if graph.tensors[t].is_constant]
    return len(constants) == 1 and bool((constants[0] == constants[0].flat[0]).all()) and constants[0].flat[0] >= 0


def _through(graph: Graph, nodes: list[Node], value: float) -> float:
    """What the chain makes of one number."""
    for node in nodes:
        constants = [float(graph.constant(t).flat[0]) for t in node.inputs if graph.tensors[t].is_constant]
        value = value * constants[0] if node.op == "MUL" else value + constants[0] if node.op == "ADD" else value
    return value


def _parted(graph: Graph, root: Node, squares: float) -> Graph:
    """``root`` in two parts that meet where the sum of squares is ``squares``."""
    first, *rest = ops_before_root(graph, root)
    v, limit, new = root.inputs[0], _through(graph, rest, squares), Chain(graph, root, alike=True)

    def number(value: float, like: int) -> int:
        return new.constant(np.full(graph.tensors[like].shape, value))

    coarse = new.add("ADD", new.add("SUB", v, number(limit, v), **RELU), number(limit, v))
    total = first.outputs[0]
    again = new.add(first.op, *first.inputs, **vars(first.attrs))
    below = new.add("SUB", number(squares, total), again, **RELU)
    fine = new.add("SUB", number(squares, total), below)
    for node in rest:
        inputs = (t if graph.tensors[t].is_constant else fine for t in node.inputs)
        fine = new.add(node.op, *inputs, **vars(node.attrs))
    both = new.add("ADD", new.add("RSQRT", coarse), new.add("RSQRT", fine))
    return new.instead("SUB", both, number(limit**-0.5, v))


def parted_roots(graph: Graph, ends: Callable[[int], tuple[float, float]]) -> Graph:
    """The graph with the int16 RSQRTs whose values lie far apart in two parts; the same values.

    Args:
        ends: the smallest and largest value of a tensor, by id.
    """
    for node in graph.nodes:
        nodes = ops_before_root(graph, node) if node.op == "RSQRT" and node.in_island else []
        if not nodes or nodes[0].op != "BATCH_MATMUL":
            continue
        low, high = ends(nodes[0].outputs[0])
        if low > 0 and high > FAR * low:
            graph = _parted(graph, node, float(np.float32(np.sqrt(HEADROOM * low * high))))
    return graph


def limits(graph: Graph) -> dict[int, float]:
    """The largest values that the nodes of the smaller parts write, or that matter to their only reader, by tensor."""
    found: dict[int, float] = {}
    for node in graph.nodes:
        out, source = node.outputs[0], _operand(graph, node)
        if node.op == "SUB" and graph.tensors[node.inputs[0]].is_constant:
            limit, made = float(graph.constant(node.inputs[0]).max()), graph.producer(source)
            if vars(node.attrs) == RELU and made is not None and _is_sum(made) and graph.users(source) == (node,):
                found |= {source: limit, out: limit}
            elif source in found:
                found[out] = limit
        elif source in found and (node.op == "RESHAPE" or (node.op in ("ADD", "MUL") and _positive(graph, node))):
            found[out] = _through(graph, [node], found[source])
    return found
