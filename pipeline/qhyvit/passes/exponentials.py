"""A softmax that the converter wrote as exponentials over their sum is a SOFTMAX again, whatever its axis.

Recognised by what is computed: exp(z) is divided by what depends on it alone, and the quotient is the softmax of z, or
of the x that something was taken off to get z, the largest value mostly, over one axis. Another axis than the last
takes a TRANSPOSE before and one behind.
"""

from __future__ import annotations

import torch

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import copying
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.spec import Copies
from qhyvit.passes.shared.graph_pass import Pass, Phase
from qhyvit.passes.shared.values import EQUAL, depends_on, results_of

MOVES = copying(Copies.ONCE)


def _behind_moves(graph: Graph) -> Graph:
    """Exponentials whose only reader moves them are taken behind it: of what is divided and what is added up, alike."""
    for powers in [n for n in graph.nodes if n.op == "EXP"]:
        while len(users := graph.users(powers.outputs[0])) == 1 and users[0].op in MOVES:
            chain = Chain(graph, users[0])
            moved = chain.add(users[0].op, powers.inputs[0], *users[0].inputs[1:], **vars(users[0].attrs))
            graph = chain.instead("EXP", moved)
            powers = next(n for n in graph.nodes if n.outputs == users[0].outputs)
    return graph


def _exponential(graph: Graph, quotient: Node) -> Node | None:
    """The EXP of the dividend."""
    node = graph.producer(quotient.inputs[0])
    return node if node is not None and node.op == "EXP" else None


def _axis(graph: Graph, source: int, quotient: Node) -> int | None:
    """The axis of ``source`` whose softmax ``quotient`` gives, in the same place."""
    shape = graph.tensors[source].shape
    if graph.tensors[quotient.outputs[0]].shape != shape or not graph.users(source):
        return None
    nodes = depends_on(graph, source, graph.nodes.index(graph.users(source)[0]))
    if quotient not in nodes:
        return None
    values = results_of(graph, source, nodes)
    for axis in range(1, len(shape) + 1):
        if float((values[quotient.outputs[0]] - torch.softmax(values[source], axis)).abs().max()) < EQUAL:
            return axis - 1
    return None


def _made(graph: Graph, source: int, axis: int, quotient: Node) -> Graph:
    chain, rank = Chain(graph, quotient), len(graph.tensors[source].shape)
    if axis == rank - 1:
        return chain.instead("SOFTMAX", source, beta=1.0)
    order = [*(a for a in range(rank) if a != axis), axis]
    back = sorted(range(rank), key=order.__getitem__)
    last = chain.add("TRANSPOSE", source, chain.constant(order))
    return chain.instead("TRANSPOSE", chain.add("SOFTMAX", last, beta=1.0), chain.constant(back))


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    graph = _behind_moves(graph)
    for node in graph.nodes:
        powers = _exponential(graph, node) if node.op == "DIV" else None
        if powers is None:
            continue
        taken = graph.producer(powers.inputs[0])
        sources = [taken.inputs[0]] if taken is not None and taken.op == "SUB" else []
        for source in [*sources, powers.inputs[0]]:
            axis = None if graph.tensors[source].is_constant else _axis(graph, source, node)
            if axis is not None:
                graph = _made(graph, source, axis, node)
                break
    return graph


PASS = Pass("exponentials", "exponentials over their sum are a SOFTMAX", apply, phase=Phase.EXPORT)
