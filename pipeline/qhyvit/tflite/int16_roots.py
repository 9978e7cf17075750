"""1 / sqrt(v) in int16 islands in two parts, where the values of v lie far apart.

The runtime's int16 RSQRT interpolates between 1 / sqrt of every 128th code: right within 0.2 % from code 1024 on, 0.4 %
from 512 on, and nonsense below 128. With v1 = max(v, L) and v2 = min(v, L),
1 / sqrt(v) = 1 / sqrt(v1) + 1 / sqrt(v2) - 1 / sqrt(L), and each part has all codes for its own range. The squares are
summed a second time for v2, whose int16 saturates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops._elementwise import ElementwiseAttrs

HEADROOM = 2.0  # what other images may have beyond the largest value of those that calibrate
FAR = 16.0  # largest over smallest value that one root serves: codes 1024 to 16384
RELU = ElementwiseAttrs(fused_activation_function="RELU")


def chain(graph: Graph, root: Node) -> list[Node]:
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


@dataclass
class _Before:
    """A graph that gets nodes in front of ``anchor``, all of them outside int8."""

    graph: Graph
    anchor: Node

    def add(self, node: Node, name: str) -> int:
        """``node`` with an output of its own, of the shape of that which it has; the id."""
        shape = self.graph.tensors[node.outputs[0]].shape
        self.graph, out = edit.add_tensor(self.graph, name, shape, "FLOAT32")
        self.graph = edit.insert_before(self.graph, self.anchor, replace(node, outputs=(out,), block=self.anchor.block))
        self.graph = replace(self.graph, floats=self.graph.floats | {out})
        return out

    def op(self, op: str, a: int | float, b: int | float, like: int, name: str, *, relu: bool = False) -> int:
        """An elementwise op of tensors and numbers, of the shape of ``like``."""
        a, b = (self._number(v, like, name) if isinstance(v, float) else v for v in (a, b))
        return self.add(Node(op, RELU if relu else ElementwiseAttrs(), (a, b), (like,)), name)

    def _number(self, value: float, like: int, name: str) -> int:
        data = np.full(self.graph.tensors[like].shape, value, np.float32)
        self.graph, constant = edit.add_tensor(self.graph, f"{name}:limit", data.shape, "FLOAT32", data)
        return constant


def _through(graph: Graph, nodes: list[Node], value: float) -> float:
    """What the chain makes of one number."""
    for node in nodes:
        constants = [float(graph.constant(t).flat[0]) for t in node.inputs if graph.tensors[t].is_constant]
        value = value * constants[0] if node.op == "MUL" else value + constants[0] if node.op == "ADD" else value
    return value


def _parted(graph: Graph, root: Node, squares: float) -> Graph:
    """``root`` in two parts that meet where the sum of squares is ``squares``."""
    first, *rest = chain(graph, root)
    name, v = graph.tensors[root.outputs[0]].name, root.inputs[0]
    limit = _through(graph, rest, squares)
    before = _Before(graph, root)
    above = before.op("SUB", v, limit, v, f"{name}.above", relu=True)
    coarse = before.op("ADD", above, limit, v, f"{name}.coarse")
    again = before.add(first, f"{name}.again")
    below = before.op("SUB", squares, again, first.outputs[0], f"{name}.below", relu=True)
    fine = before.op("SUB", squares, below, first.outputs[0], f"{name}.fine")
    for node in rest:
        inputs = tuple(t if graph.tensors[t].is_constant else fine for t in node.inputs)
        fine = before.add(replace(node, inputs=inputs), f"{name}.fine")
    one, other = (before.add(replace(root, inputs=(t,)), f"{name}.part") for t in (coarse, fine))
    both = before.op("ADD", one, other, v, f"{name}.parts")
    last = before.op("SUB", both, limit**-0.5, v, f"{name}.whole")
    whole = before.graph.producer(last)
    assert whole is not None
    graph = replace(before.graph, floats=before.graph.floats - {last})
    graph = edit.remove_node(graph, whole)
    return edit.replace_node(graph, root, replace(whole, outputs=root.outputs))


def parted_roots(graph: Graph, ends: Callable[[int], tuple[float, float]]) -> Graph:
    """The graph with the int16 RSQRTs whose values lie far apart in two parts; the same values.

    Args:
        ends: the smallest and largest value of a tensor, by id.
    """
    for node in graph.nodes:
        nodes = chain(graph, node) if node.op == "RSQRT" and graph.in_float(node) else []
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
            if node.attrs == RELU and made is not None and _is_sum(made) and graph.users(source) == (node,):
                found |= {source: limit, out: limit}
            elif source in found:
                found[out] = limit
        elif source in found and (node.op == "RESHAPE" or (node.op in ("ADD", "MUL") and _positive(graph, node))):
            found[out] = _through(graph, [node], found[source])
    return found
