"""Which tensors hold no value below 0, whatever the image."""

from __future__ import annotations

from collections.abc import Callable

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import FusedActivation, Nonnegative, Tied


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

    op, fused = spec(node.op), getattr(node.attrs, "fused_activation_function", FusedActivation.NONE)
    is_square = node.op == "MUL" and node.inputs[0] == node.inputs[1]
    if is_square or op.nonnegative is Nonnegative.ALWAYS or fused in (FusedActivation.RELU, FusedActivation.RELU6):
        return True
    if op.nonnegative is Nonnegative.OF_ANY:
        return each(any)
    return (op.nonnegative is Nonnegative.OF_ALL or isinstance(op.out, Tied)) and each(all)
