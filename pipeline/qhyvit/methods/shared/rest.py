"""For what a paper leaves open: the observer whose ranges bring the outputs nearest to the float ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qhyvit.graph.ir import Graph
from qhyvit.lowering.contracts import Group, groups
from qhyvit.methods.shared.hessian import mean_distance
from qhyvit.methods.shared.observe import observe_all
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.ranges import finish, group_quant, spread
from qhyvit.plan import TensorQuant

OBSERVERS = ("minmax", "moving_average", "percentile", "mse")


def observed(problem: Problem, *names: str) -> dict[str, dict[Group, TensorQuant]]:
    """Every group by each of the observers, asymmetric where its readers allow it."""
    found = observe_all(problem, groups(problem.graph), names)
    return {
        name: {g: group_quant(g, low, high, name, bits=problem.bits) for g, (low, high) in ranges.items()}
        for name, ranges in found.items()
    }


def assembled(
    problem: Problem,
    rest: Mapping[Group, TensorQuant],
    own: Mapping[int, TensorQuant],
    weights: Mapping[str, TensorQuant],
) -> dict[str, TensorQuant]:
    """The rest's ranges with a method's ``own`` choices (by tensor id) in place of their groups'."""
    graph = problem.graph
    quants = spread(graph, rest)
    by_member = {t: g for g in rest for t in g.members}
    for t, quant in own.items():
        put(graph, quants, by_member[t], t, quant)
    return finish(graph, {**quants, **weights})


def put(graph: Graph, quants: dict[str, TensorQuant], group: Group, tensor: int, quant: TensorQuant) -> None:
    """Set ``quant`` for a whole group; a channel-wise one for ``tensor`` alone, whose copies it fits."""
    for t in group.members:
        quants.pop(graph.tensors[t].name, None)
    for t in (tensor,) if quant.axis is not None else group.members:
        quants[graph.tensors[t].name] = quant


def best(problem: Problem, tries: Sequence[tuple[str, Mapping[str, TensorQuant]]]) -> dict[str, TensorQuant]:
    """Of several named quantizations of everything, the one with the least distance on the calibration images."""
    if len(tries) == 1:
        return dict(tries[0][1])
    scores = []
    for done, (name, quants) in enumerate(tries):
        problem.progress("compare settings", done / len(tries))
        scores.append(mean_distance(problem, quants))
        problem.log(f"{name}: distance {scores[-1]:.4f}")
    return dict(tries[scores.index(min(scores))][1])
