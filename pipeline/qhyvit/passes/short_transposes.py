"""The transpose that puts patches back into a map, [p, q, h, w, C] to [h, p, w, q, C], in two steps where it is large.

Vela takes no such transpose of five axes on U55 and U65 where h * w * C is above 65,536. Rows first, then columns: each
step exchanges two neighbouring axes of fewer.
"""

from __future__ import annotations

import math

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass
from qhyvit.targets import Target

PATCHES_BACK = [2, 0, 3, 1, 4]


def _is_wanted(graph: Graph, node: Node, largest: int) -> bool:
    if node.op != "TRANSPOSE" or list(graph.constant(node.inputs[1])) != PATCHES_BACK:
        return False
    return math.prod(graph.tensors[node.inputs[0]].shape[2:]) > largest


def apply(graph: Graph, target: Target | None = None) -> Graph:
    """Value-preserving: the same values in the same places."""
    largest = None if target is None else target.largest_transpose
    if largest is None:
        return graph
    for node in graph.nodes:
        if _is_wanted(graph, node, largest):
            p, q, h, w, channels = graph.tensors[node.inputs[0]].shape
            chain = Chain(graph, node)
            rows = chain.transpose(chain.reshape(node.inputs[0], p * q, h, w * channels), 1, 0, 2)
            columns = chain.transpose(chain.reshape(rows, h * p, q, w, channels), 0, 2, 1, 3)
            graph = chain.replaced_by(columns)
    return graph


PASS = Pass(
    "short_transposes",
    "no large transpose of patches in one step",
    apply,
    only=lambda target: target.largest_transpose is not None,
    targeted=apply,
)
