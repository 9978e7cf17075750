"""REVERSE_V2 as GATHER: ai-edge-quantizer does not know the former."""

from __future__ import annotations

from qhyvit.graph.ir import Graph
from qhyvit.ops._chain import Chain
from qhyvit.ops._reduce import axes_of
from qhyvit.rewrites._rewrite import Rewrite


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for node in graph.nodes:
        if node.op != "REVERSE_V2":
            continue
        chain, source, shape = Chain(graph, node), node.inputs[0], graph.tensors[node.inputs[0]].shape
        *before, last = axes_of(graph.constant(node.inputs[1]), len(shape))
        for axis in before:
            source = chain.add("GATHER", source, chain.constant(range(shape[axis])[::-1]), axis=axis)
        graph = chain.instead("GATHER", source, chain.constant(range(shape[last])[::-1]), axis=last)
    return graph


REWRITE = Rewrite("reversals", "no REVERSE_V2", apply, order=-3)
