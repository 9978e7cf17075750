"""TRANSPOSEs move behind what treats every value alike, down to those that undo them, and both go.

A network that was written for [1, C, H, W] has its convolutions between TRANSPOSEs, and residual streams in between. A
file that takes such images gets another one in front, so that they come as [1, H, W, C].
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.reduce import axes_of
from qhyvit.passes.shared.graph_pass import Pass, Phase

ALIKE = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "LOGISTIC", "TANH", "RELU", "RELU6",
         "GELU", "HARD_SWISH", "ELU", "LEAKY_RELU", "EXP", "ABS", "NEG", "SQRT", "RSQRT", "SQUARE")  # fmt: skip
REDUCE = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")
UNORDERED = (*REDUCE, "RESHAPE", "TRANSPOSE")  # readers that may do without the TRANSPOSE in front


def _turn(graph: Graph, tensor: int) -> Node | None:
    """The TRANSPOSE that makes a tensor, None where something else does."""
    node = graph.producer(tensor)
    return node if node is not None and node.op == "TRANSPOSE" else None


def _order(graph: Graph, node: Node) -> list[int] | None:
    """The order of axes in which operands come, constants and single values apart; None: there is no one.

    Of a sum one operand may be in no order: a residual stream begins there, or goes on, and its sums are what the order
    goes on through.
    """
    rank, orders = len(graph.tensors[node.outputs[0]].shape), set()
    readers = graph.users(node.outputs[0])
    is_only_reduced = bool(readers) and all(u.op in REDUCE for u in readers)
    for t in node.inputs:
        tensor, turn = graph.tensors[t], _turn(graph, t)
        if tensor.is_constant:
            continue
        # the squares of a norm, which would be none of what is turned any more
        if is_only_reduced and len(graph.users(t)) > 1:
            return None
        if len(tensor.shape) != rank and math.prod(tensor.shape) > 1:
            return None
        if turn is not None:
            orders.add(tuple(int(p) for p in graph.constant(turn.inputs[1])))
        elif node.op != "ADD" and math.prod(tensor.shape) > 1:
            return None
    return list(orders.pop()) if len(orders) == 1 else None


def _turned(graph: Graph, node: Node, tensor: int, order: list[int]) -> tuple[Graph, int]:
    """What ``tensor`` is in front of a TRANSPOSE to ``order``, for ``node`` to read."""
    value, turn, back = graph.tensors[tensor], _turn(graph, tensor), np.argsort(order)
    if turn is not None:
        return graph, turn.inputs[0]
    if math.prod(value.shape) == 1:
        return graph, tensor
    if value.is_constant:
        data = graph.constant(tensor)
        data = data.reshape((1,) * (len(order) - data.ndim) + data.shape).transpose(back)
        return edit.add_tensor(graph, value.name, data.shape, value.dtype, np.ascontiguousarray(data))
    chain = Chain(graph, node)
    turned = chain.transpose(tensor, *map(int, back))
    return chain.graph, turned


def _sunk(graph: Graph, node: Node, order: list[int]) -> Graph:
    """The graph with ``node`` in front of a TRANSPOSE that was in front of it."""
    inputs = []
    for t in node.inputs:
        graph, source = _turned(graph, node, t, order)
        inputs.append(source)
    (out,) = node.outputs
    made = graph.tensors[out]
    shape = [made.shape[axis] for axis in np.argsort(order)]
    graph, inner = edit.add_tensor(graph, f"{made.name}.{node.op.lower()}", shape, made.dtype)
    graph, axes = edit.add_tensor(graph, f"{made.name}:in1", (len(order),), "INT32", np.array(order, np.int32))
    first = replace(node, inputs=tuple(inputs), outputs=(inner,))
    behind = Node("TRANSPOSE", spec("TRANSPOSE").attrs(), (inner, axes), (out,), node.block)
    at = graph.nodes.index(node)
    return replace(graph, nodes=(*graph.nodes[:at], first, behind, *graph.nodes[at + 1 :]))


def _unordered(graph: Graph, node: Node) -> Graph:
    """The graph in which a node reads what is in front of a TRANSPOSE, if it does not mind the order of values.

    Unchanged where the TRANSPOSE stays for other readers: a norm of what is turned would be none any more.
    """
    turn, (out,) = _turn(graph, node.inputs[0]), node.outputs
    if turn is None or any(u.op not in UNORDERED for u in graph.users(node.inputs[0])):
        return graph
    source, axes = turn.inputs[0], node.inputs[1]
    users = graph.users(out)
    if node.op == "RESHAPE" and users and all(u.op == "FULLY_CONNECTED" and u.inputs[:2] == (out, out) for u in users):
        return edit.replace_node(graph, node, replace(node, inputs=(source, axes)))  # a row's product with itself
    if node.op not in REDUCE:
        return graph
    order = graph.constant(turn.inputs[1])
    reduced = axes_of(graph.constant(axes), len(order))
    left = [order[axis] for axis in range(len(order)) if axis not in reduced]
    # what is left lies in the same order, and where axes of one element stay does not matter if all are such
    if (not node.attrs.keep_dims and left == sorted(left)) or math.prod(graph.tensors[out].shape) == 1:
        found = np.sort(order[list(reduced)]).astype(np.int32)
        graph, axes = edit.add_tensor(graph, graph.tensors[axes].name, found.shape, "INT32", found)
        return edit.replace_node(graph, node, replace(node, inputs=(source, axes)))
    return graph


def _without_undone(graph: Graph) -> Graph:
    """The graph without TRANSPOSEs that put back what those in front of them moved."""
    for old in graph.nodes:
        node = graph.producer(old.outputs[0])  # as it is by now: what it reads may have changed
        before = None if node is None or node.op != "TRANSPOSE" else graph.producer(node.inputs[0])
        if node is None or before is None or before.op != "TRANSPOSE":
            continue
        order = graph.constant(before.inputs[1])[graph.constant(node.inputs[1])]
        if order.tolist() != sorted(order):
            continue
        if node.outputs[0] not in graph.outputs:
            graph = edit.without_unread(edit.bypassed(graph, node, before.inputs[0]))
            continue
        graph = _made_by(graph, before.inputs[0], node.outputs[0])
    return graph


def _made_by(graph: Graph, source: int, output: int) -> Graph:
    """The graph in which what makes ``source`` makes ``output``, which has the same values, and keeps its name.

    Unchanged where ``source`` is an end of the graph itself.
    """
    if source in graph.inputs or source in graph.outputs or graph.tensors[source].is_constant:
        return graph

    def renamed(ids: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(output if t == source else t for t in ids)

    nodes = (replace(n, inputs=renamed(n.inputs), outputs=renamed(n.outputs)) for n in graph.nodes
             if output not in n.outputs)  # fmt: skip
    tensors = {t: v for t, v in graph.tensors.items() if t != source}
    return edit.without_unread(replace(graph, nodes=tuple(nodes), tensors=tensors))


def _moved(graph: Graph) -> int:
    """Values that TRANSPOSEs move."""
    return sum(math.prod(graph.tensors[n.outputs[0]].shape) for n in graph.nodes if n.op == "TRANSPOSE")


def apply(graph: Graph) -> Graph:
    """Value-preserving; the very same graph where TRANSPOSEs would not move fewer values."""
    new = _without_undone(graph)
    for old in new.nodes:
        node = new.producer(old.outputs[0])
        order = _order(new, node) if node is not None and node.op in ALIKE else None
        if node is not None and order is not None:
            new = _sunk(new, node, order)
    for old in new.nodes:
        node = new.producer(old.outputs[0])
        if node is not None and node.op in (*REDUCE, "RESHAPE"):
            new = _unordered(new, node)
    new = _without_undone(edit.without_unread(new))
    return new if _moved(new) < _moved(graph) else graph


PASS = Pass(
    "sunk_transposes", "no TRANSPOSE on both sides of what treats all values alike", apply, phase=Phase.EXPORT,
    after=("sample_norms",),
)  # fmt: skip
