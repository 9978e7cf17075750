"""What int8 can give of ops that grow without bound towards 0, as 1 / sqrt(x) does.

An operand between 0 and its grid's first step is 0 to the kernel. What float gives there (1e7 for an operand of 1e-14)
says nothing about the codes that are needed, and a range or a histogram that holds it has no codes left for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

from qhyvit import affine
from qhyvit.graph.ir import Graph
from qhyvit.lowering.contracts import Group
from qhyvit.ops import spec
from qhyvit.plan import TensorQuant


def largest_results(graph: Graph, quants: Mapping[str, TensorQuant]) -> dict[int, float]:
    """The largest value that int8 tells from infinity, of each tensor that such an op writes, by tensor id."""
    found = {}
    for node in graph.nodes:
        largest, read = spec(node.op).largest, graph.tensors[node.inputs[0]].name if node.inputs else ""
        if largest is not None and node.is_int8 and read in quants:
            found[node.outputs[0]] = largest(quants[read].scale[0])
    return found


def bounded(graph: Graph, ranges: Mapping[Group, tuple[float, float]], bits: int) -> dict[Group, tuple[float, float]]:
    """Ranges that were observed, without what no code of the operands gives."""
    found = dict(ranges)
    group_of = {t: group for group in ranges for t in group.members}
    for node in graph.nodes:
        largest = spec(node.op).largest
        if largest is None or not node.is_int8 or not {node.inputs[0], node.outputs[0]} <= group_of.keys():
            continue
        low, high = found[group_of[node.inputs[0]]]
        step = (max(high, 0.0) - min(low, 0.0)) / affine.grid(bits).levels
        made = group_of[node.outputs[0]]
        if step > 0:
            found[made] = found[made][0], min(found[made][1], largest(step))
    return found
