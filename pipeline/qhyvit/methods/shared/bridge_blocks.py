"""Bridge blocks from the structure: where a spatial map becomes tokens that mix globally, or such tokens a map again.

A bridge tensor is one that is rounded on one side and read, through RESHAPE, TRANSPOSE and others that only move codes,
in the other layout: a spatial map [_, H, W, C] read as tokens on their way to a product of two activations
(attention), an entry; or tokens that come from such a product read as a map, an exit. Between the bridge and the
product nothing spatial lies: no convolution with a kernel larger than 1, no pool, no resize.
"""

from __future__ import annotations

from dataclasses import dataclass

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import copying, spec
from qhyvit.ops.shared.layer import layer_of
from qhyvit.ops.shared.spec import Copies
from qhyvit.sim.partial import counted

COPIES = copying(Copies.ONCE)
READS_MAP = (
    "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONCATENATION", "ADD", "MUL", "LOGISTIC", "PRELU", "PAD", "MEAN",
)  # fmt: skip


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
    return len(shape) == 4 and shape[1] > 1 and shape[2] > 1


def _looks_around(graph: Graph, node: Node) -> bool:
    """Whether ``node`` is local: each result depends on neighbouring positions."""
    layer = layer_of(graph, node)
    if layer is not None:
        return layer.weight_shape[1:-1] not in ((), (1, 1))
    return spec(node.op).local


@dataclass(frozen=True)
class _Global:
    """Tensors that lead to a product of two activations, and those that come from one, with nothing local between."""

    leads: frozenset[int]
    comes: frozenset[int]


def _global(graph: Graph) -> _Global:
    leads: set[int] = set()
    comes: set[int] = set()
    mixes = {n.outputs[0] for n in graph.nodes if n.op == "BATCH_MATMUL" and len(counted(graph, n)) == 2}
    for node in reversed(graph.nodes):
        on_the_way = not _looks_around(graph, node) and any(t in leads for t in node.outputs)
        if on_the_way or node.outputs[0] in mixes:
            leads.update(t for t in node.inputs if t >= 0 and not graph.tensors[t].is_constant)
    for node in graph.nodes:
        on_the_way = not _looks_around(graph, node) and any(t in comes for t in node.inputs)
        if on_the_way or node.outputs[0] in mixes:
            comes.update(node.outputs)
    return _Global(frozenset(leads), frozenset(comes))


def _copies(graph: Graph, tensor: int) -> list[int]:
    """Everything that ops which only move codes make of ``tensor``."""
    found = []
    for user in graph.users(tensor):
        if user.op in COPIES:
            found += [user.outputs[0], *_copies(graph, user.outputs[0])]
    return found


def _is_map(graph: Graph, tensor: int) -> bool:
    """Whether ``tensor`` is read as a spatial map."""
    return _spatial(graph.tensors[tensor].shape) and any(u.op in READS_MAP for u in graph.users(tensor))


def _is_tokens(graph: Graph, tensor: int) -> bool:
    """Whether ``tensor`` is read, but not as a map nor to be copied only."""
    return not _is_map(graph, tensor) and any(u.op not in COPIES for u in graph.users(tensor))


def bridges(graph: Graph) -> list[Bridge]:
    """All bridges of a graph, in execution order."""
    around, found = _global(graph), []
    for node, tensor in ((n, t) for n in graph.nodes if n.op not in COPIES for t in n.outputs):
        copies = _copies(graph, tensor)
        # a product's axes are heads, positions and tokens, however many there are
        is_map = _spatial(graph.tensors[tensor].shape) and node.op != "BATCH_MATMUL"
        if is_map and any(_is_tokens(graph, t) and t in around.leads for t in copies):
            found.append(Bridge(tensor, entry=True))
        elif not is_map and tensor in around.comes and any(_is_map(graph, t) for t in copies):
            found.append(Bridge(tensor, entry=False))
    return found


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
