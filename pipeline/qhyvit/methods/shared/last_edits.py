"""The last edits, once it is decided what computes outside int8, and the scales of int16 islands.

These are from the values of the float network: of the quantized one, a variance that int8 rounds to nothing has a root
beyond all measure.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from qhyvit.graph.ir import INT16, Graph
from qhyvit.lowering.int16_roots import parted_roots
from qhyvit.lowering.int16_scales import scales
from qhyvit.methods.shared.problem import Problem, Solution
from qhyvit.passes import passes_of
from qhyvit.passes.shared.graph_pass import Phase
from qhyvit.sim.checked import Edit
from qhyvit.sim.run import Executor

Ends = dict[int, tuple[float, float]]


def _ends(problem: Problem, graph: Graph, wanted: Collection[int]) -> Ends:
    """Smallest and largest value of tensors over all images."""
    executor, ends = Executor(graph), dict.fromkeys(wanted, (float("inf"), -float("inf")))
    for found in problem.values(executor, wanted):
        ends = {t: (min(a, float(found[t].min())), max(b, float(found[t].max()))) for t, (a, b) in ends.items()}
    return ends


def lowered(problem: Problem, solution: Solution) -> Solution:
    """``solution`` behind the passes of the last phase, with the scales of its int16 islands if it has such."""
    edits = [p.edit(problem.target) for p in passes_of(Phase.LOWERED, problem.target)]
    problem, _ = problem.on(solution.graph).edited(edits)
    if not any(node.reads == INT16 for node in problem.graph.nodes):
        return replace(solution, graph=problem.graph)
    ends = _ends(problem, problem.graph, problem.graph.islands)
    problem, _ = problem.edited([Edit("roots in two parts", lambda graph: parted_roots(graph, ends.__getitem__))])
    ends = _ends(problem, problem.graph, problem.graph.islands)
    peaks = {t: max(-low, high) for t, (low, high) in ends.items()}
    return replace(solution, graph=problem.graph, int16=scales(problem.graph, solution.tensors, peaks))
