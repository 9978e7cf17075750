"""minmax: every range by one observer (min-max unless another is named), weights by their extremes. The baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qhyvit.methods._observe import observe
from qhyvit.methods._problem import Method, Problem, Solution
from qhyvit.methods._ranges import finish, group_quant, groups, minmax_weights, spread
from qhyvit.observers import all_observers
from qhyvit.options import Option


def search(problem: Problem, options: Mapping[str, Any]) -> Solution:
    """Ranges by the observer in ``options``; nothing is searched."""
    name = str(options["observer"])
    graph = problem.graph
    ranges = observe(problem, groups(graph), name)
    chosen = {group: group_quant(group, low, high, name, bits=problem.bits) for group, (low, high) in ranges.items()}
    return Solution(graph, finish(graph, {**spread(graph, chosen), **minmax_weights(graph, problem.bits)}))


OPTIONS = {"observer": Option("minmax", "of the ranges of activations", choices=tuple(all_observers()))}
METHOD = Method("minmax", "ranges of one observer, no search", search, OPTIONS)
