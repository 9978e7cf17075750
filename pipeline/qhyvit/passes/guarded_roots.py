"""A float root of a mean of int8 codes gets a least operand.

The mean may be 0 where it never is in float, all codes of a token being 0; 1 / sqrt(0) times 0 is no number. A norm
whose eps lies elsewhere in the float graph has nothing to keep it from that. An int8 root gives its highest code.
"""

from __future__ import annotations

import numpy as np

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass

LEAST = 1e-12  # far below what any norm's statistics are, and its root far from float32's limits


def _is_bare(graph: Graph, root: Node) -> bool:
    """Whether ``root`` is that of a mean with nothing added."""
    made = graph.producer(root.inputs[0])
    return root.op == "RSQRT" and made is not None and made.op == "MEAN"


def apply(graph: Graph) -> Graph:
    """Value-preserving but where the operand is of the size of ``LEAST``."""
    for root in graph.nodes:
        if _is_bare(graph, root):
            chain, (source,) = Chain(graph, root), root.inputs
            least = chain.constant(np.full(graph.tensors[source].shape, LEAST))
            graph = chain.instead("RSQRT", chain.add("ADD", source, least))
    return graph


PASS = Pass("guarded_roots", "float roots of means have an operand above 0", apply, only=lambda target: target.floats)
