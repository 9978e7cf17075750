"""One pass of the float graph over the calibration images, with an observer on every root tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qhyvit.graph.ir import Node, Tensor
from qhyvit.methods._problem import Problem
from qhyvit.methods._ranges import constant_ranges
from qhyvit.observers import observer
from qhyvit.observers._base import State
from qhyvit.sim.run import Executor
from qhyvit.tflite.legal import Group


class _Watch:
    """Hook that shows every root tensor to its state."""

    def __init__(self, states: dict[int, State]) -> None:
        self.states = states

    def __call__(self, tensor: Tensor, x: torch.Tensor, node: Node | None) -> torch.Tensor:
        state = self.states.get(tensor.id)
        if state is not None:
            state.update(x)
        return x


def observe(problem: Problem, all_groups: Sequence[Group], name: str) -> dict[Group, tuple[float, float]]:
    """Range of every group by the observer ``name``: the widest of its roots'."""
    graph = problem.graph
    states = {t: observer(name).new(None) for g in all_groups for t in g.roots if not graph.tensors[t].is_constant}
    executor, watch = Executor(graph), _Watch(states)
    with torch.no_grad():
        for done, images in enumerate(problem.batches()):
            problem.progress("observe", done / problem.batch_count)
            executor.run(images, watch)
    ranges = {}
    for group in all_groups:
        fixed = constant_ranges(graph, group)
        if fixed is not None:
            ranges[group] = fixed
            continue
        ends = [states[t].range() for t in group.roots if t in states]
        ranges[group] = (float(min(e[0] for e in ends)), float(max(e[1] for e in ends)))
    return ranges
