"""Ranges that a round narrowed too much are taken back.

The objective takes errors for independent of each other. What a range cuts off is not: all large values of a channel
come out too small at once, and the layers behind add that up. Where outputs are farther from float's behind a round
than with the ranges before it, those that were narrowed most are as they were; how many, the distance itself says.
"""

from __future__ import annotations

from collections.abc import Mapping

from qhyvit.lowering.contracts import Group, groups
from qhyvit.methods.shared.hessian import mean_distance
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.ranges import ends, finish, suits
from qhyvit.plan import TensorQuant

IMAGES = 8  # that show the distance
NARROWED = 1.05  # an end of the range was so many times as far from 0

Quants = Mapping[str, TensorQuant]


def _narrowed(before: TensorQuant, after: TensorQuant) -> float:
    """By how much the end that moved most moved towards 0."""
    (low, high), (new_low, new_high) = ends(before), ends(after)
    return max(min(low, 0.0) / min(new_low, -after.scale[0]), max(high, 0.0) / max(new_high, after.scale[0]))


def taken_back(problem: Problem, before: Quants, after: Quants) -> Quants:
    """``after`` with those ranges of ``before`` with which the outputs are nearest to float's.

    Args:
        problem: :data:`IMAGES` of its images show the distance.
        before: quantizations of tensors whose values are still the same, by name.
        after: of all tensors.
    """
    graph, some = problem.graph, problem.some(IMAGES)

    def name(group: Group) -> str:
        return graph.tensors[group.members[0]].name

    def known(group: Group) -> bool:
        quant = before.get(name(group))
        return quant is not None and suits(group, quant)

    free = [g for g in groups(graph) if g.fixed is None and not graph.tensors[g.members[0]].is_constant]
    both = [(g, _narrowed(before[name(g)], after[name(g)])) for g in free if known(g)]
    cut = [g for g, by in sorted(both, key=lambda each: -each[1]) if by > NARROWED]

    def mixed(count: int) -> dict[str, TensorQuant]:
        return {**after, **{graph.tensors[t].name: before[name(g)] for g in cut[:count] for t in g.members}}

    def distance(count: int) -> float:
        return mean_distance(some, finish(graph, mixed(count)))

    if not cut:
        return after
    found = {count: distance(count) for count in (0, len(cut))}
    if found[0] <= found[len(cut)]:
        return after
    found |= {count: distance(count) for count in (4**i for i in range(len(cut).bit_length())) if count < len(cut)}
    best = min(found, key=found.__getitem__)
    problem.log(f"ranges taken back, the distance is smaller with them: {best} of {len(cut)} that were narrowed")
    return mixed(best)
