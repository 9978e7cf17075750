"""HARD_SWISH is x * relu6(x + 3) / 6: ADD with a fused RELU6 and two products, all of which XNNPACK has in int8.

TFLite's own int8 kernel took 508 us for a map of 64 x 32 x 32 where the three took 8. The last factor goes into the
layers behind (``channel_factors``), and the first product lets a scale a channel pass (``folds/silu_split.py``).
"""

from __future__ import annotations

import numpy as np

from qhyvit.graph.ir import Graph
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.spec import FusedActivation
from qhyvit.passes.shared.graph_pass import Pass


def apply(graph: Graph) -> Graph:
    """Value-preserving."""
    for node in graph.nodes:
        if node.op == "HARD_SWISH":
            chain, (x,) = Chain(graph, node), node.inputs
            ones = (1,) * len(graph.tensors[x].shape)
            three, sixth = (chain.constant(np.full(ones, value, np.float32)) for value in (3.0, 1 / 6))
            gate = chain.add("ADD", x, three, fused_activation_function=FusedActivation.RELU6)
            graph = chain.instead("MUL", chain.add("MUL", x, gate), sixth)
    return graph


PASS = Pass("hard_swishes", "no HARD_SWISH", apply)
