"""Scales of int16 islands, once all else is decided: from the largest values of the float network.

Those of the quantized one would not do: a variance that int8 rounds to nothing has a root beyond all measure.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from qhyvit.methods._problem import Problem, Solution
from qhyvit.sim.run import Executor
from qhyvit.tflite.int16_islands import scales
from qhyvit.tflite.int16_sums import summed_in_int16


def with_int16(problem: Problem, solution: Solution) -> Solution:
    """``solution`` with the scales of its int16 islands; unchanged where the profile or the graph has none."""
    graph = summed_in_int16(solution.graph)
    inside = graph.floats - graph.wide
    if problem.profile != "integer" or not inside:
        return solution
    executor, peaks = Executor(graph), dict.fromkeys(inside, 0.0)
    with torch.no_grad():
        for images in problem.batches():
            for t, x in executor.run(images, None, inside).items():
                peaks[t] = max(peaks.get(t, 0.0), float(x.abs().max()))
    return replace(solution, int16=scales(graph, solution.tensors, peaks))
