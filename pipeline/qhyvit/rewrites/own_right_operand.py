"""A matrix product's right operand gets a range of its own where the same values are read elsewhere too.

XNNPACK wants zero point 0 on the right; where the operand comes from an elementwise op whose result has other
readers, those would share the symmetric range. Computing the op twice costs microseconds and frees them.
"""

from __future__ import annotations

from dataclasses import replace

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.rewrites._rewrite import Rewrite

COPIES = ("RESHAPE", "TRANSPOSE")
CHEAP = ("ADD", "SUB")


def _chain(graph: Graph, tensor: int) -> list[Node] | None:
    """The elementwise op behind ``tensor`` and the copies after it; None where it is something else."""
    node = graph.producer(tensor)
    if node is None:
        return None
    if node.op in CHEAP:
        return [node]
    if node.op not in COPIES:
        return None
    before = _chain(graph, node.inputs[0])
    return None if before is None else [*before, node]


def _own(graph: Graph, reader: Node, position: int) -> Graph:
    chain = _chain(graph, reader.inputs[position])
    if chain is None or all(len(graph.users(n.outputs[0])) == 1 for n in chain):
        return graph
    previous = -1
    for node in chain:
        old = graph.tensors[node.outputs[0]]
        graph, copy = edit.add_tensor(graph, f"{old.name}.right", old.shape, old.dtype)
        inputs = node.inputs if previous < 0 else (previous, *node.inputs[1:])
        graph = edit.insert_before(graph, reader, replace(node, inputs=inputs, outputs=(copy,)))
        previous = copy
    inputs = tuple(previous if i == position else t for i, t in enumerate(reader.inputs))
    graph = edit.replace_node(graph, reader, replace(reader, inputs=inputs))
    for node in chain[1:]:  # copies that nobody reads any more
        if not graph.users(node.outputs[0]) and node.outputs[0] not in graph.outputs:
            graph = edit.remove_node(graph, node)
    return graph


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same arithmetic, twice."""
    for node in graph.nodes:
        for position in spec(node.op).symmetric_inputs:
            graph = _own(graph, node, position)
    return graph


REWRITE = Rewrite("own_right_operand", "symmetric right operands do not force their range on other readers", apply)
