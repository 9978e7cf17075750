"""Bridge blocks from the structure: where a spatial map becomes tokens, or tokens a map again.

A bridge tensor is one that is rounded on one side and read, through a TRANSPOSE that only copies codes, in the
other layout: a spatial map [1, H, W, C] read as tokens (an entry, which counts one bridge block), or tokens read
as a map (an exit).
"""

from __future__ import annotations

from dataclasses import dataclass

from qhyvit.graph.ir import Graph
from qhyvit.ops import spec
from qhyvit.tflite.legal import groups

READS_MAP = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONCATENATION", "ADD", "MUL", "LOGISTIC", "PAD", "MEAN")


@dataclass(frozen=True)
class Bridge:
    """One bridge: the id of the rounded tensor, and whether the global part is entered or left."""

    tensor: int
    entry: bool


@dataclass(frozen=True)
class BridgeBlock:
    """The part of the graph that the hybrid objective reconstructs as one.

    ``inside``: ids from the bridge tensor on; ``outputs``: the outputs of the next ops with weights.
    """

    bridge: Bridge
    inside: tuple[int, ...]
    outputs: tuple[int, ...]


def _spatial(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] == 1 and shape[1] > 1 and shape[2] > 1


def _copies(graph: Graph, tensor: int) -> list[tuple[str, int]]:
    """(op, tensor) of everything that RESHAPE and TRANSPOSE make of ``tensor``."""
    found = []
    for user in graph.users(tensor):
        if user.op in ("RESHAPE", "TRANSPOSE"):
            found += [(user.op, user.outputs[0]), *_copies(graph, user.outputs[0])]
    return found


def _is_map(graph: Graph, tensor: int) -> bool:
    """Whether ``tensor`` is read as a spatial map."""
    return _spatial(graph.tensors[tensor].shape) and any(u.op in READS_MAP for u in graph.users(tensor))


def bridges(graph: Graph) -> list[Bridge]:
    """All bridges of a graph, in execution order."""
    found = []
    for tensor in sorted(t for group in groups(graph) for t in group.roots if t not in graph.inputs):
        copies = _copies(graph, tensor)
        if all(op != "TRANSPOSE" for op, _ in copies):
            continue
        becomes_map = any(_is_map(graph, t) for _, t in copies)
        if _spatial(graph.tensors[tensor].shape) != becomes_map:
            found.append(Bridge(tensor, entry=not becomes_map))
    order = {t.id: i for i, t in enumerate(graph.activations())}
    return sorted(found, key=lambda b: order.get(b.tensor, -1))


def bridge_blocks(graph: Graph) -> list[BridgeBlock]:
    """The block of each bridge: from its tensor, through ops that read nothing else, to the next ops with weights."""
    return [_block(graph, bridge) for bridge in bridges(graph)]


def _block(graph: Graph, bridge: Bridge) -> BridgeBlock:
    inside: list[int] = [bridge.tensor]
    outputs: list[int] = []
    for node in graph.nodes:
        sources = [t for t in node.inputs if t >= 0 and not graph.tensors[t].is_constant]
        if not sources or any(t not in inside for t in sources):
            continue
        (outputs if spec(node.op).weight_input >= 0 else inside).extend(node.outputs)
    return BridgeBlock(bridge, tuple(inside), tuple(outputs))
