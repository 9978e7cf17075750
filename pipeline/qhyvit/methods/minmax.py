"""minmax: every range by one observer (min-max unless another is named), weights by their extremes. The baseline."""

from __future__ import annotations

from dataclasses import dataclass

from qhyvit.methods.shared.method import Method
from qhyvit.methods.shared.observe import observe
from qhyvit.methods.shared.problem import Options, Problem, Solution
from qhyvit.methods.shared.ranges import finish, group_quant, groups, minmax_weights, spread
from qhyvit.observers import all_observers
from qhyvit.options import setting


@dataclass(frozen=True)
class MinmaxOptions(Options):
    """Options of ``minmax``."""

    observer: str = setting("minmax", "of the ranges of activations", choices=tuple(all_observers()))


def search(problem: Problem, options: MinmaxOptions) -> Solution:
    """Ranges by the observer in ``options``; nothing is searched."""
    name, graph = options.observer, problem.graph
    ranges = observe(problem, groups(graph), name)
    chosen = {group: group_quant(group, low, high, name, bits=problem.bits) for group, (low, high) in ranges.items()}
    return Solution(graph, finish(graph, {**spread(graph, chosen), **minmax_weights(graph, problem.bits)}))


METHOD = Method("minmax", "ranges of one observer, no search", search, MinmaxOptions)
