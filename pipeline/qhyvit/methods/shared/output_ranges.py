"""Ranges of the network's outputs. What rounding them costs is known: it is the distance itself.

The objective takes errors for independent, and the gradient at a small logit is nearly nothing. So it cut off all small
logits together, which makes every unlikely class likelier by one factor: alone a third of the distance of a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise

from qhyvit.lowering.contracts import Group
from qhyvit.methods.shared.problem import Problem, layout_of
from qhyvit.methods.shared.ranges import group_quant
from qhyvit.plan import TensorQuant
from qhyvit.sim.fakequant import fake_quantize, rounds

MEASURED = "distance"  # the observer of such ranges
OF_EXTREME = (1.2, 1.1, *(i / 10 for i in range(10, 0, -1)))  # an end of the range over the value that is farthest out
NEARLY = 1.25  # times the least distance: other images have larger values, and what a wider range costs is little
VALUES = 2**24  # of outputs that show the distance, at most


def output_quants(problem: Problem, all_groups: Iterable[Group], scheme: str) -> dict[Group, TensorQuant]:
    """Ranges with which rounding alone moves the outputs least, or nearly, by the groups that outputs are in.

    A group that any op computes with is left out: its rounding reaches the outputs on other ways as well.

    Args:
        problem: all its images show what values outputs have.
        scheme: "symmetric", or anything else for what the group's readers want.
    """
    graph = problem.graph
    sizes = [math.prod(shape) for shape in layout_of(graph).shapes]
    place = dict(zip(graph.outputs, (slice(*ends) for ends in pairwise(accumulate(sizes, initial=0))), strict=True))
    found = {}
    for group in all_groups:
        places = [place[t] for t in group.members if t in place]
        readers = (node for t in group.members for node in graph.users(t))
        if places and group.fixed is None and not any(map(rounds, readers)):
            found[group] = _measured(problem, group, places, symmetric=scheme == "symmetric")
    return found


def _measured(problem: Problem, group: Group, places: Sequence[slice], *, symmetric: bool) -> TensorQuant:
    """The widest range of nearly the least distance for a group: one end, then the other.

    Args:
        places: of the group's outputs in a row of all outputs.
    """
    targets = problem.targets[: max(VALUES // problem.targets.shape[1], 1)]
    values = [targets[:, place] for place in places]
    lowest, highest = min(0.0, *(float(x.min()) for x in values)), max(0.0, *(float(x.max()) for x in values))

    def quant(low: float, high: float) -> TensorQuant:
        return group_quant(group, low, high, MEASURED, symmetric=symmetric, bits=problem.bits)

    def distance(low: float, high: float) -> float:
        outputs = targets.clone()
        for place, x in zip(places, values, strict=True):
            outputs[:, place] = fake_quantize(x, quant(low, high))
        return float(problem.lowered.distance(targets, outputs).double().mean())

    def widest(ends: Sequence[float], by: Callable[[float], float]) -> float:
        found = [by(end) for end in ends]
        return next(end for end, d in zip(ends, found, strict=True) if d <= NEARLY * min(found))

    high = widest([highest * by for by in OF_EXTREME], lambda end: distance(lowest, end))
    return quant(widest([lowest * by for by in OF_EXTREME], lambda end: distance(end, high)), high)
