"""Which tensors hold no value below 0, whatever the image."""

from __future__ import annotations

from collections.abc import Callable

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.ops._spec import Tied

ALWAYS = ("RELU", "RELU6", "LOGISTIC", "SOFTMAX", "EXP", "ABS", "SQUARE", "SQUARED_DIFFERENCE", "SQRT", "RSQRT")
OF_ALL = ("ADD", "DIV", "BATCH_MATMUL", "MINIMUM", "SUM", "MEAN")  # where no operand is negative


def is_nonnegative(graph: Graph, tensor: int) -> bool:
    """Whether ``tensor`` has no negative value by the ops that make it; False where that does not show."""
    if graph.tensors[tensor].is_constant:
        data = graph.constant(tensor)
        return data.dtype.kind != "f" or bool((data >= 0).all())
    node = graph.producer(tensor)
    return node is not None and _of_node(graph, node)


def _of_node(graph: Graph, node: Node) -> bool:
    def each(where: Callable[..., bool]) -> bool:
        return where(is_nonnegative(graph, t) for t in node.inputs if t >= 0)

    fused = getattr(node.attrs, "fused_activation_function", "NONE")
    if node.op in ALWAYS or fused in ("RELU", "RELU6"):
        return True
    if node.op == "MAXIMUM":
        return each(any)
    if node.op == "MUL":
        return node.inputs[0] == node.inputs[1] or each(all)
    moves = isinstance(spec(node.op).out, Tied)
    return (node.op in OF_ALL or moves) and each(all)
