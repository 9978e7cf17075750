"""Structures that methods treat apart: norms, SiLU, softmax, the 1x1 convolutions beside a depthwise one, layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import copying
from qhyvit.ops.shared.layer import layer_of
from qhyvit.ops.shared.spec import Copies

COPIES = copying(Copies.ONCE, Copies.REPEATED)


@dataclass(frozen=True)
class Norm:
    """Ids of what a norm reads and what it gives, before gamma and beta (those are in the next linear)."""

    source: int
    output: int


def behind(graph: Graph, tensor: int) -> Iterator[Node]:
    """Readers of ``tensor``, seen through copies."""
    for user in graph.users(tensor):
        if user.op in COPIES:
            yield from behind(graph, user.outputs[0])
        else:
            yield user


def before(graph: Graph, tensor: int) -> int:
    """The tensor that ``tensor`` copies."""
    producer = graph.producer(tensor)
    return before(graph, producer.inputs[0]) if producer is not None and producer.op in COPIES else tensor


def is_layer(graph: Graph, node: Node, tensor: int | None = None) -> bool:
    """Whether ``node`` has constant weights, and reads ``tensor`` as its data and nowhere else."""
    layer = layer_of(graph, node)
    if layer is None or not graph.tensors[layer.weight].is_constant:
        return False
    return tensor is None or (layer.data == tensor and node.inputs.count(tensor) == 1)


def layers_behind(graph: Graph, tensor: int, through: Collection[str]) -> list[Node] | None:
    """All layers that read ``tensor``, through ops in ``through`` that read it once; None where another op does."""
    found: list[Node] = []
    for user in graph.users(tensor):
        if is_layer(graph, user, tensor):
            found.append(user)
            continue
        passes = user.op in through and user.inputs.count(tensor) == 1
        more = layers_behind(graph, user.outputs[0], through) if passes else None
        if more is None:
            return None
        found += more
    return None if tensor in graph.outputs else found


def norms(graph: Graph) -> list[Norm]:
    """Every c * rsqrt(...); c is the source itself, or source - mean."""
    found = []
    for node in graph.nodes:
        if node.op != "RSQRT":
            continue
        for mul in behind(graph, node.outputs[0]):
            others = [t for t in mul.inputs if before(graph, t) != node.outputs[0]]
            if mul.op != "MUL" or len(others) != 1:
                continue
            centred = before(graph, others[0])
            producer = graph.producer(centred)
            source = producer.inputs[0] if producer is not None and producer.op == "SUB" else centred
            found.append(Norm(source, mul.outputs[0]))
    return found


def silu_outputs(graph: Graph) -> list[int]:
    """Ids of x * sigmoid(x)."""
    found = []
    for node in graph.nodes:
        if node.op != "MUL":
            continue
        producers = [graph.producer(t) for t in node.inputs]
        for producer, other in zip(producers, reversed(node.inputs), strict=True):
            if producer is not None and producer.op == "LOGISTIC" and producer.inputs[0] == other:
                found.append(node.outputs[0])
    return found


def softmax_outputs(graph: Graph) -> list[int]:
    """Ids of softmax outputs."""
    return [node.outputs[0] for node in graph.nodes if node.op == "SOFTMAX"]


def pointwise_beside_depthwise(graph: Graph) -> list[Node]:
    """The 1x1 convolutions of inverted residual blocks: before (expand) or behind (project) a depthwise one."""
    reads_depthwise: set[int] = set()
    feeds_depthwise: set[int] = set()
    for node in graph.nodes:
        if node.op == "DEPTHWISE_CONV_2D" and graph.tensors[node.inputs[1]].shape[1] > 1:
            feeds_depthwise |= _upstream(graph, node.inputs[0])
            reads_depthwise |= _downstream(graph, node.outputs[0])
    found = []
    for node in graph.nodes:
        beside = node.outputs[0] in feeds_depthwise or node.inputs[0] in reads_depthwise
        if node.op == "CONV_2D" and beside and graph.tensors[node.inputs[1]].shape[1:3] == (1, 1):
            found.append(node)
    return found


def _upstream(graph: Graph, tensor: int) -> set[int]:
    """``tensor`` and what an activation function before it reads."""
    producer = graph.producer(tensor)
    found = {tensor}
    if producer is not None and producer.op in ("MUL", "LOGISTIC"):
        found |= {t for t in producer.inputs if not graph.tensors[t].is_constant}
    return found


def _downstream(graph: Graph, tensor: int) -> set[int]:
    """``tensor`` and what an activation function behind it gives."""
    return {tensor} | {u.outputs[0] for u in graph.users(tensor) if u.op == "MUL"}
