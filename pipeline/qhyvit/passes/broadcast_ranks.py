"""An elementwise op reads an operand of fewer axes as it is, where the converter puts ones in front of its shape."""

from __future__ import annotations

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.passes.shared.graph_pass import Pass, Phase


def _adds_ones(graph: Graph, node: Node) -> bool:
    if node.op != "RESHAPE" or node.outputs[0] in graph.outputs:
        return False
    before, after = (graph.tensors[t].shape for t in (node.inputs[0], node.outputs[0]))
    return len(after) > len(before) > 0 and after == (*(1,) * (len(after) - len(before)), *before)


def _has_rank(graph: Graph, node: Node, tensor: int) -> bool:
    """Whether another operand of an elementwise op has as many axes as ``tensor`` gives it."""
    rank = len(graph.tensors[tensor].shape)
    return spec(node.op).pairwise and any(len(graph.tensors[t].shape) == rank for t in node.inputs if t != tensor)


def apply(graph: Graph) -> Graph:
    """Value-preserving: TFLite aligns shapes at their ends."""
    for node in graph.nodes:
        if not _adds_ones(graph, node):
            continue
        source, out = node.inputs[0], node.outputs[0]
        if all(_has_rank(graph, u, out) for u in graph.users(out)):
            graph = edit.bypassed(graph, node, source)
    return graph


PASS = Pass(
    "broadcast_ranks",
    "no RESHAPE that only adds axes for an elementwise op",
    apply,
    phase=Phase.EXPORT,
    after=("channel_order", "exponentials"),
)
