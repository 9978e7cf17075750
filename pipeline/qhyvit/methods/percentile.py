"""percentile: every range at a percentile of the values, weights by their extremes."""

from __future__ import annotations

from dataclasses import dataclass

from qhyvit.methods.shared.method import Method
from qhyvit.methods.shared.problem import Options, Problem, Solution
from qhyvit.methods.shared.ranges import minmax_weights
from qhyvit.methods.shared.rest import assembled, best, observed
from qhyvit.options import setting

OBSERVERS = ("percentile_99.9", "percentile", "percentile_99.999")


@dataclass(frozen=True)
class PercentileOptions(Options):
    """Options of ``percentile``."""

    observer: str = setting("best", "the percentile; best: the one with the least KL", choices=("best", *OBSERVERS))


def find(problem: Problem, options: PercentileOptions) -> Solution:
    """The percentile with the least KL on the calibration images, or the one named."""
    names = OBSERVERS if options.observer == "best" else (options.observer,)
    weights = minmax_weights(problem.graph, problem.bits)
    tries = [(name, assembled(problem, rest, {}, weights)) for name, rest in observed(problem, *names).items()]
    return Solution(problem.graph, best(problem, tries))


METHOD = Method("percentile", "ranges at 99.9, 99.99 or 99.999 % of the values", find, PercentileOptions)
