"""A mean over the last axes reads one image of one row, [1, 1, R, C].

Vela takes no MEAN of several images, and none over the channels of a map with height and width. In memory the values
lie alike: the views are RESHAPEs. A longer mean than it takes becomes one of equally long means.
"""

from __future__ import annotations

import math

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.reduce import axes_of
from qhyvit.passes.shared.graph_pass import Pass
from qhyvit.targets import Target


def _rows(graph: Graph, node: Node, longest: int) -> tuple[int, int] | None:
    """How many means a MEAN over last axes takes, and of how many values each; None: of other axes, or flat already."""
    shape = graph.tensors[node.inputs[0]].shape
    axes = axes_of(graph.constant(node.inputs[1]), len(shape))
    first = len(shape) - len(axes)
    is_flat = len(shape) == 4 and shape[:2] == (1, 1) and first == 3 and shape[3] <= longest
    if axes != tuple(range(first, len(shape))) or is_flat:
        return None
    return math.prod(shape[:first]), math.prod(shape[first:])


def _parts(count: int, longest: int) -> int:
    """Into how many equal parts of at most ``longest`` so many values go, the fewest; 1 if into none."""
    least = -(-count // longest)
    return next((n for n in range(least, longest + 1) if count % n == 0), 1)


def apply(graph: Graph, target: Target | None = None) -> Graph:
    """Value-preserving: the same means."""
    longest = None if target is None else target.longest_mean
    if longest is None:
        return graph
    for node in graph.nodes:
        rows = _rows(graph, node, longest) if node.op == "MEAN" else None
        if rows is not None:
            chain = Chain(graph, node)
            count, length = rows
            parts = _parts(length, longest)
            mean = chain.reshape(node.inputs[0], 1, 1, count * parts, length // parts)
            mean = chain.add("MEAN", mean, chain.constant([3]), keep_dims=True)
            if parts > 1:
                mean = chain.reshape(mean, 1, 1, count, parts)
                mean = chain.add("MEAN", mean, chain.constant([3]), keep_dims=True)
            graph = chain.replaced_by(mean)
    return graph


PASS = Pass(
    "flat_means",
    "means over last axes read [1, 1, R, C]",
    apply,
    after=("layer_norms", "short_reductions"),
    only=lambda target: target.longest_mean is not None,
    targeted=apply,
)
