"""percentile: every range at a percentile of the values, weights by their extremes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qhyvit.methods._problem import Method, Problem, Solution
from qhyvit.methods._ranges import minmax_weights
from qhyvit.methods._rest import assembled, best, observed
from qhyvit.options import Option

OBSERVERS = ("percentile_99.9", "percentile", "percentile_99.999")


def find(problem: Problem, options: Mapping[str, Any]) -> Solution:
    """The percentile with the least KL on the calibration images, or the one named."""
    names = OBSERVERS if options["observer"] == "best" else (str(options["observer"]),)
    weights = minmax_weights(problem.graph, problem.bits)
    tries = [(name, assembled(problem, rest, {}, weights)) for name, rest in observed(problem, *names).items()]
    return Solution(problem.graph, best(problem, tries))


OPTIONS = {"observer": Option("best", "the percentile; best: the one with the least KL", choices=("best", *OBSERVERS))}
METHOD = Method("percentile", "ranges at 99.9, 99.99 or 99.999 % of the values", find, OPTIONS)
