"""Int16 islands, once all else is decided: their last edits and their scales, from the values of the float network.

Those of the quantized one would not do: a variance that int8 rounds to nothing has a root beyond all measure.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch

from qhyvit.graph.ir import Graph
from qhyvit.methods._problem import Problem, Solution
from qhyvit.sim.checked import Edit
from qhyvit.sim.run import Executor
from qhyvit.tflite.int16_islands import scales
from qhyvit.tflite.int16_roots import parted_roots
from qhyvit.tflite.int16_sums import summed_in_int16
from qhyvit.tflite.twins import without_twins

Ends = dict[int, tuple[float, float]]


def _ends(problem: Problem, graph: Graph, wanted: Collection[int]) -> Ends:
    """Smallest and largest value of tensors over all images."""
    executor, ends = Executor(graph), dict.fromkeys(wanted, (float("inf"), -float("inf")))
    with torch.no_grad():
        for images in problem.batches():
            found = executor.run(images, None, wanted)
            ends = {t: (min(a, float(found[t].min())), max(b, float(found[t].max()))) for t, (a, b) in ends.items()}
    return ends


def with_int16(problem: Problem, solution: Solution) -> Solution:
    """``solution`` with its int16 islands as the file has them; unchanged where there are none."""
    graph = solution.graph
    if problem.profile != "integer" or not graph.islands:
        return solution
    edits = [Edit("one of two equal int16 nodes", without_twins), Edit("sums in int16", summed_in_int16)]
    problem, _ = problem.on(graph).edited(edits)
    ends = _ends(problem, problem.graph, problem.graph.islands)
    problem, _ = problem.edited([Edit("roots in two parts", lambda graph: parted_roots(graph, ends.__getitem__))])
    ends = _ends(problem, problem.graph, problem.graph.islands)
    peaks = {t: max(-low, high) for t, (low, high) in ends.items()}
    return replace(solution, graph=problem.graph, int16=scales(problem.graph, solution.tensors, peaks))
