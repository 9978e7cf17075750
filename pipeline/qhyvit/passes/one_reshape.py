"""A RESHAPE that only another RESHAPE reads goes: XNNPACK copies the tensor for each."""

from __future__ import annotations

from dataclasses import replace

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph
from qhyvit.passes.shared.graph_pass import Pass


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for old in graph.nodes:
        node = graph.producer(old.outputs[0])  # as it is by now: what it reads may be gone
        if node is None or node.op != "RESHAPE" or node.outputs[0] in graph.outputs:
            continue
        users = graph.users(node.outputs[0])
        if users and all(u.op == "RESHAPE" for u in users):
            for user in users:
                second = replace(user, inputs=(node.inputs[0], *user.inputs[1:]))
                graph = edit.replace_node(graph, user, second)
            graph = edit.remove_node(graph, node)
    return graph


PASS = Pass("one_reshape", "no RESHAPE in front of a RESHAPE", apply, after=("batched_layers", "batches_as_copies"))
