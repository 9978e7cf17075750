"""The graph that every method searches: softmaxes and GELUs in the forms that its kernels compute fastest."""

from __future__ import annotations

from qhyvit.lowering.contracts import groups
from qhyvit.methods.shared.gelu import again, as_silus, candidates
from qhyvit.methods.shared.hessian import mean_distance
from qhyvit.methods.shared.linear_attention import balanced
from qhyvit.methods.shared.observe import observe
from qhyvit.methods.shared.problem import Options, Problem
from qhyvit.methods.shared.ranges import finish, group_quant, minmax_weights, spread
from qhyvit.methods.shared.softmax import quotients, unroll

IMAGES = 32  # that show what GELUs in another form cost


def formed(problem: Problem, options: Options) -> Problem:
    """The problem with its softmaxes and GELUs in those forms; smaller grids are studied on the kernels themselves."""
    problem = balanced(problem)
    if problem.bits < 8:
        return problem
    if options.fast_softmax:
        problem = unroll(quotients(problem))
    if options.fast_gelu and candidates(problem.graph):
        some = problem.some(IMAGES)
        problem = again(problem, as_silus(some, _distance(some)))
    return problem


def _distance(problem: Problem) -> float:
    """How far quantized outputs are from the reference with ranges of least squared error: the price of a form."""
    graph = problem.graph
    ranges = observe(problem, groups(graph), "mse")
    chosen = {group: group_quant(group, low, high, "mse") for group, (low, high) in ranges.items()}
    return mean_distance(problem, finish(graph, {**spread(graph, chosen), **minmax_weights(graph)}))
