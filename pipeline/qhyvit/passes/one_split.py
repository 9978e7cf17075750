"""SLICE ops that cut a tensor into three equal parts or more become one SPLIT; two take no longer than it does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.split import SplitAttrs
from qhyvit.passes.shared.graph_pass import Pass, Phase

LEAST = 3  # parts


def _cut(graph: Graph, node: Node) -> tuple[int, int] | None:
    """The one axis that a SLICE cuts, and where its part begins."""
    shape = graph.tensors[node.inputs[0]].shape
    begin = graph.constant(node.inputs[1])
    axes = [a for a, n in enumerate(graph.tensors[node.outputs[0]].shape) if n != shape[a]]
    return (axes[0], int(begin[axes[0]])) if len(axes) == 1 else None


def _parts(graph: Graph, tensor: int) -> tuple[int, list[Node]] | None:
    """The axis, and the slices in the order of their parts, where they cut ``tensor`` whole and evenly."""
    slices = [n for n in graph.users(tensor) if n.op == "SLICE"]
    cuts = {node: cut for node in slices if (cut := _cut(graph, node)) is not None}
    if len(slices) < LEAST or len(cuts) < len(slices) or len({axis for axis, _ in cuts.values()}) > 1:
        return None
    axis, whole = next(iter(cuts.values()))[0], graph.tensors[tensor].shape
    size = whole[axis] // len(slices)
    ordered = sorted(slices, key=lambda n: cuts[n][1])
    even = all(graph.tensors[n.outputs[0]].shape[axis] == size for n in ordered)
    starts = [cuts[n][1] for n in ordered]
    return (axis, ordered) if even and starts == list(range(0, whole[axis], size)) else None


def _joined(graph: Graph, tensor: int, axis: int, slices: list[Node]) -> Graph:
    data = np.array(axis, np.int32)
    graph, axis_id = edit.add_tensor(graph, f"{graph.tensors[tensor].name}.parts:axis", (), "INT32", data)
    outputs = tuple(n.outputs[0] for n in slices)
    first = min(slices, key=graph.nodes.index)
    made = Node("SPLIT", SplitAttrs(len(slices)), (axis_id, tensor), outputs, first.block)
    graph = edit.replace_node(graph, first, made)
    return replace(graph, nodes=tuple(n for n in graph.nodes if n is made or n not in slices))


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for tensor in [n.inputs[0] for n in graph.nodes if n.op == "SLICE"]:
        found = _parts(graph, tensor)
        if found is not None:
            graph = _joined(graph, tensor, *found)
    return graph


PASS = Pass(
    "one_split",
    "slices that cut a tensor into equal parts are one SPLIT",
    apply,
    phase=Phase.EXPORT,
    after=("channel_order", "exponentials"),
)
