"""What int8 can give of ops that grow without bound towards 0, as 1 / sqrt(x) does.

An operand between 0 and its grid's first step is 0 to the kernel. What float gives there (1e7 for an operand of 1e-14)
says nothing about the codes that are needed, and a range or a histogram that holds it has no codes left for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from qhyvit import affine
from qhyvit.graph.ir import Graph
from qhyvit.lowering.contracts import Group
from qhyvit.ops import spec
from qhyvit.plan import TensorQuant
from qhyvit.sim.run import Hook

Range = tuple[float, float]
SLACK = 1 + 1e-6  # float32 does not hold a limit to the last bit
NEAR = 0.01  # of a limit: less than a code


def largest_results(graph: Graph, quants: Mapping[str, TensorQuant]) -> dict[int, float]:
    """The largest value that int8 tells from infinity, of each tensor that such an op writes, by tensor id."""
    found = {}
    for node in graph.nodes:
        largest, read = spec(node.op).largest, graph.tensors[node.inputs[0]].name if node.inputs else ""
        if largest is not None and node.is_int8 and read in quants:
            found[node.outputs[0]] = largest(quants[read].scale[0])
    return found


def limits_of(graph: Graph, ranges: Mapping[Group, Range], bits: int, known: Collection[int] = ()) -> dict[int, float]:
    """The same by ranges that were observed: of tensors that go beyond, and of those that are ``known`` to."""
    found = {}
    group_of = {t: group for group in ranges for t in group.members}
    for node in graph.nodes:
        largest = spec(node.op).largest
        if largest is None or not node.is_int8 or not {node.inputs[0], node.outputs[0]} <= group_of.keys():
            continue
        low, high = ranges[group_of[node.inputs[0]]]
        step = (max(high, 0.0) - min(low, 0.0)) / affine.grid(bits).levels
        (made,) = node.outputs
        if step > 0 and (made in known or ranges[group_of[made]][1] > largest(step) * SLACK):
            found[made] = largest(step)
    return found


def are_near(limits: Mapping[int, float], others: Mapping[int, float]) -> bool:
    """Whether they are of the same tensors, and differ by next to nothing."""
    return limits.keys() == others.keys() and all(math.isclose(limits[t], others[t], rel_tol=NEAR) for t in limits)


def cut_at(limits: Mapping[int, float]) -> Hook:
    """Lets no value of these tensors through that is larger: what is made of them has no larger ones either."""
    return lambda tensor, x, node: x.clamp_max(limits[tensor.id]) if tensor.id in limits else x


def within(ranges: Mapping[Group, Range], limits: Mapping[int, float]) -> dict[Group, Range]:
    """Ranges of values that were cut, which histograms make a bin wider, without what goes beyond."""
    most = {group: limits[group.roots[0]] for group in ranges if len(group.roots) == 1 and group.roots[0] in limits}
    return {group: (low, min(high, most.get(group, high))) for group, (low, high) in ranges.items()}
