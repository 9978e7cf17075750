"""A pass of the float graph over the calibration images, with an observer on every root tensor.

Where results go beyond what int8 can give (:mod:`qhyvit.methods.shared.unbounded`), another pass cuts them there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from qhyvit.lowering.contracts import Group
from qhyvit.methods.shared.problem import Problem, all_done, runner
from qhyvit.methods.shared.ranges import constant_ranges
from qhyvit.methods.shared.unbounded import are_near, cut_at, limits_of, within
from qhyvit.observers import observer
from qhyvit.observers.shared.histogram import Histogram, serving, share
from qhyvit.observers.shared.observer import Observed, Observer
from qhyvit.sim.run import Executor

Watched = Observed | Histogram  # a histogram by itself gives no range


def _updated(states: Sequence[Observed]) -> list[Watched]:
    """Those that have to see the values: one histogram serves all observers that read one."""
    histograms = [s for s in states if isinstance(s, Histogram)]
    others: list[Watched] = [s for s in states if not isinstance(s, Histogram)]
    return [*others, serving(histograms)] if histograms else others


Ranges = dict[Group, tuple[float, float]]


def observe(problem: Problem, all_groups: Sequence[Group], by: str | Observer) -> Ranges:
    """Range of every group by an observer, or the one of that name: the widest of its roots'."""
    chosen = observer(by) if isinstance(by, str) else by
    return _observed(problem, all_groups, (chosen,))[chosen.name]


def observe_all(problem: Problem, all_groups: Sequence[Group], names: Sequence[str]) -> dict[str, Ranges]:
    """The same for several observers in one pass, by their names."""
    return _observed(problem, all_groups, [observer(name) for name in names])


def _observed(problem: Problem, all_groups: Sequence[Group], observers: Sequence[Observer]) -> dict[str, Ranges]:
    found = _seen(problem, all_groups, observers, {})
    return {o.name: _within(problem, all_groups, o, found[o.name]) for o in observers}


def _within(problem: Problem, all_groups: Sequence[Group], by: Observer, ranges: Ranges) -> Ranges:
    """Ranges without what no code of the operands gives, nor what would be made of it."""
    limits: dict[int, float] = {}
    while not are_near(more := limits_of(problem.graph, ranges, problem.bits, limits), limits):
        limits = more  # some lower than they would be: their operands were made of what is cut now
        ranges = _seen(problem, all_groups, (by,), limits)[by.name]
    return within(ranges, limits)


def _seen(
    problem: Problem, all_groups: Sequence[Group], observers: Sequence[Observer], limits: Mapping[int, float]
) -> dict[str, Ranges]:
    graph = problem.graph
    watched = [t for g in all_groups for t in g.roots if not graph.tensors[t].is_constant]
    states = {t: [o.new(None) for o in observers] for t in watched}
    updated = {t: _updated(found) for t, found in states.items()}
    for seen in problem.in_pairs(runner(Executor(graph), watched, cut_at(limits)), "observe"):

        def update(t: int, seen: Sequence[Mapping[int, torch.Tensor]] = seen) -> None:
            for values in seen:
                for state in updated[t]:
                    state.update(values[t])

        all_done(update, updated)
    for found in states.values():
        if histograms := [s for s in found if isinstance(s, Histogram)]:
            share(histograms)
    return {
        o.name: _ranges(problem, all_groups, {t: found[i] for t, found in states.items()})
        for i, o in enumerate(observers)
    }


def _ranges(problem: Problem, all_groups: Sequence[Group], states: Mapping[int, Observed]) -> Ranges:
    ranges = {}
    for group in all_groups:
        fixed = constant_ranges(problem.graph, group, problem.bits)
        if fixed is not None:
            ranges[group] = fixed
            continue
        ends = [states[t].range() for t in group.roots if t in states]
        ranges[group] = (float(min(e[0] for e in ends)), float(max(e[1] for e in ends)))
    return ranges
