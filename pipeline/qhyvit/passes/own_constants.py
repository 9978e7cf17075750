"""Every weight, bias and operand constant gets one reader, so that folds may change it for that reader alone."""

from __future__ import annotations

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph
from qhyvit.passes.shared.graph_pass import Pass


def apply(graph: Graph) -> Graph:
    """Copy float constants that several nodes share."""
    for node in graph.nodes:
        current = node
        for position, t in enumerate(node.inputs):
            if t >= 0 and graph.tensors[t].is_constant and graph.tensors[t].dtype == "FLOAT32":
                graph, current = edit.own_constant(graph, current, position)
    return graph


PASS = Pass("own_constants", "float constants are not shared between nodes", apply)
