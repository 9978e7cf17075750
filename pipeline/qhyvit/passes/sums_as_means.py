"""A sum as a mean times the number of values, for targets whose int8 SUM is wrong."""

from __future__ import annotations

import math

from qhyvit.graph.ir import Graph
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for node in graph.nodes:
        if node.op == "SUM":
            before, after = (math.prod(graph.tensors[t].shape) for t in (node.inputs[0], node.outputs[0]))
            chain = Chain(graph, node)
            mean = chain.add("MEAN", *node.inputs, **vars(node.attrs))
            graph = chain.instead("MUL", mean, chain.constant([before / after]))
    return graph


PASS = Pass(
    "sums_as_means",
    "no SUM",
    apply,
    after=("padded_columns", "layer_norms", "short_reductions"),
    only=lambda target: "SUM" in target.lacks,
)
