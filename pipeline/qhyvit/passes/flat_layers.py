"""A FULLY_CONNECTED op reads tokens as they are, where the converter flattens the leading axes and restores them.

[.., K] -> RESHAPE [R, K] -> FULLY_CONNECTED [R, N] -> RESHAPE: the op keeps leading axes itself, so that the first
RESHAPE, a copy of the whole tensor, goes.
"""

from __future__ import annotations

from dataclasses import replace

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.passes.shared.graph_pass import Pass, Phase


def _flattened(graph: Graph, node: Node) -> Node | None:
    """The RESHAPE in front, if it keeps the last axis and the result is only reshaped again."""
    before = graph.producer(node.inputs[0])
    result = node.outputs[0]
    if before is None or before.op != "RESHAPE" or result in graph.outputs:
        return None
    same_last = graph.tensors[before.inputs[0]].shape[-1:] == graph.tensors[before.outputs[0]].shape[-1:]
    users = graph.users(result)
    return before if same_last and users and all(n.op == "RESHAPE" for n in users) else None


def _unflattened(graph: Graph, node: Node, before: Node) -> Graph:
    source, old = graph.tensors[before.inputs[0]], graph.tensors[node.outputs[0]]
    tensors = {**graph.tensors, old.id: replace(old, shape=(*source.shape[:-1], old.shape[-1]))}
    attrs = replace(node.attrs, keep_num_dims=True)
    layer = replace(node, attrs=attrs, inputs=(source.id, *node.inputs[1:]))
    graph = edit.replace_node(replace(graph, tensors=tensors), node, layer)
    unread = not graph.users(before.outputs[0]) and before.outputs[0] not in graph.outputs
    return edit.remove_node(graph, before) if unread else graph


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same products, in the same order."""
    for node in graph.nodes:
        if node.op == "FULLY_CONNECTED" and graph.tensors[node.inputs[1]].is_constant:
            before = _flattened(graph, node)
            if before is not None:
                graph = _unflattened(graph, node, before)
    return graph


PASS = Pass(
    "flat_layers",
    "no RESHAPE in front of a FULLY_CONNECTED that can do without",
    apply,
    phase=Phase.EXPORT,
    after=("channel_order", "exponentials"),
)
