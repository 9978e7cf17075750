"""A TRANSPOSE that puts back what one in front of it moved goes.

Files that take [1, C, H, W] begin with one, and another is put in front of it so that images come as [1, H, W, C].
"""

from __future__ import annotations

from dataclasses import replace

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph
from qhyvit.passes.shared.graph_pass import Pass, Phase


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for old in graph.nodes:
        node = graph.producer(old.outputs[0])  # as it is by now: what it reads may have changed
        before = None if node is None or node.op != "TRANSPOSE" else graph.producer(node.inputs[0])
        if node is None or before is None or before.op != "TRANSPOSE":
            continue
        order = graph.constant(before.inputs[1])[graph.constant(node.inputs[1])]
        if order.tolist() != sorted(order):
            continue
        if node.outputs[0] not in graph.outputs:
            graph = edit.without_unread(edit.bypassed(graph, node, before.inputs[0]))
            continue
        graph = _made_by(graph, before.inputs[0], node.outputs[0])
    return graph


def _made_by(graph: Graph, source: int, output: int) -> Graph:
    """The graph in which what makes ``source`` makes ``output``, which has the same values, and keeps its name.

    Unchanged where ``source`` is an end of the graph itself.
    """
    if source in graph.inputs or source in graph.outputs or graph.tensors[source].is_constant:
        return graph

    def renamed(ids: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(output if t == source else t for t in ids)

    nodes = (replace(n, inputs=renamed(n.inputs), outputs=renamed(n.outputs)) for n in graph.nodes
             if output not in n.outputs)  # fmt: skip
    tensors = {t: v for t, v in graph.tensors.items() if t != source}
    return edit.without_unread(replace(graph, nodes=tuple(nodes), tensors=tensors))


PASS = Pass("undone_transposes", "no TRANSPOSE that undoes the one in front", apply, phase=Phase.EXPORT)
