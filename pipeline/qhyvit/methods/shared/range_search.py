"""Ranges of ``qhyvit``: where they begin, how a round searches them, and what becomes of them behind an edit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from qhyvit import affine
from qhyvit.graph.ir import Graph
from qhyvit.lowering.contracts import Group, groups
from qhyvit.methods.shared.hessian import Statistics
from qhyvit.methods.shared.observe import observe
from qhyvit.methods.shared.pixels import PIXELS, pixel_quant
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.ranges import ends, grid_for, group_quant, suits
from qhyvit.observers.shared.histogram import PooledRows, Row
from qhyvit.observers.shared.search import Found, extremes, search, widened
from qhyvit.plan import TensorQuant
from qhyvit.sim.run import Executor

Chosen = dict[Group, TensorQuant]
NEAR = 0.99  # of a floor
WIDER = 0.05  # of a group's mean part of the objective: what a range without clipping may cost
HEADROOM = 1.5  # of what a divisor was seen to be: other images have larger ones
UNCLIPPED = "unclipped"  # the observer of such ranges
SIGMOID_FLAT = 8.0  # beyond, the sigmoid is within a code of 0 or 1


def _pinned(group: Group, row: Row) -> float | None:
    """Where the lower end of a group's range has to lie, None: anywhere.

    A floor that values come near: in an unrolled softmax 1 + ELU weighs thousands of positions, which are nearly all
    nothing; what the grid misses of -1 counts as often.
    """
    if group.low_at_zero:
        return 0.0
    return group.floor if group.floor is not None and extremes(row)[0] < NEAR * group.floor else None


@dataclass(frozen=True)
class RangeSearch:
    """How a group's range is searched.

    Args:
        joint: both ends are multiples of min-max; else each end is searched.
        scheme: "search", or the one that activations have where their readers allow it.
        wide: ranges do not clip where that is nearly free.
        divisors: tensors that are never clipped. Where a numerator is, its own value is wrong; a divisor changes every
            quotient by it, and where it adds up a whole image, images differ in it.
    """

    bits: int
    joint: bool = False
    scheme: str = "search"
    wide: bool = False
    divisors: Collection[int] = ()

    def best(self, group: Group, statistics: Statistics) -> _Best | None:
        """Range and scheme with the least weighted error over all roots; None without gradients."""
        seen = [t for t in group.roots if t in statistics.peak]
        rows = [row for t in seen for row in statistics.histograms[t].channels() if row.s0.sum() > 0]
        if group.fixed is not None or not rows:
            return None
        row = rows[0] if len(rows) == 1 else PooledRows(rows).merged([1.0] * len(rows))
        joint, scheme = self.joint, self.scheme
        centred = grid_for(self.bits, symmetric=True, right=group.symmetric)
        symmetric = _Best(row, search(row, centred, symmetric=True, joint=joint), centred, is_symmetric=True)
        if group.symmetric or group.centred or (scheme == "symmetric" and not group.low_at_zero):
            return symmetric
        pin, grid = _pinned(group, row), grid_for(self.bits, symmetric=False)
        free = _Best(row, search(row, grid, pin_low=pin, joint=joint), grid, pin)
        either = scheme == "search" and pin is None
        return symmetric if either and symmetric.found.error < free.found.error else free

    def all(self, all_groups: Sequence[Group], statistics: Statistics, start: Chosen) -> tuple[Chosen, float]:
        """One round: the best range of every group that carries gradients; the objective of the whole."""
        best = {group: self.best(group, statistics) for group in all_groups if start[group].choice.observer != PIXELS}
        known = {group: each for group, each in best.items() if each is not None}
        total = sum(each.found.error for each in known.values())
        allowance = WIDER * total / max(len(known), 1) if self.wide and not self.joint else 0.0
        chosen = dict(start)
        for group, each in known.items():
            found, by = each.widened(allowance), "hessian"
            if any(t in self.divisors for t in group.roots):
                found, by = each.unclipped(), UNCLIPPED
            chosen[group] = group_quant(
                group, found.low, found.high, by, found.error, symmetric=each.is_symmetric, bits=self.bits
            )
        return chosen, total


@dataclass(frozen=True)
class _Best:
    """The best range of a group, what it was found on, and how."""

    row: Row
    found: Found
    grid: affine.Grid
    pin: float | None = None
    is_symmetric: bool = False

    def unclipped(self) -> Found:
        """A range with room for larger values than those that were seen."""
        low, high = (HEADROOM * end for end in extremes(self.row))
        return replace(self.found, low=min(low, self.found.low), high=max(high, self.found.high))

    def widened(self, allowance: float) -> Found:
        """See :func:`qhyvit.observers.shared.search.widened`; a floor stays a code."""
        if allowance == 0 or (self.pin is not None and self.pin < 0):
            return self.found
        return widened(self.row, self.found, allowance, self.grid, symmetric=self.is_symmetric, pin_low=self.pin)


def first_ranges(problem: Problem) -> Chosen:
    """Min-max ranges, as Algorithm 1 begins."""
    found = observe(problem, groups(problem.graph), "minmax")
    ranges = {g: group_quant(g, low, high, "minmax", bits=problem.bits) for g, (low, high) in found.items()}
    return _with_pixels(problem, ranges)


def _with_pixels(problem: Problem, chosen: Chosen) -> Chosen:
    """The input on its own grid, where it has one."""
    exact = pixel_quant(problem.images, problem.bits)
    if exact is None:
        return chosen
    source = problem.graph.inputs[0]
    return {g: exact if source in g.members and suits(g, exact) else quant for g, quant in chosen.items()}


def ranges_behind(
    problem: Problem, keep: Mapping[str, TensorQuant], ranges: Mapping[int, tuple[float, float]]
) -> Chosen:
    """Ranges behind edits: what ``keep`` holds for tensors that are as they were, ``ranges`` for those it names.

    For the others, which are new or were scaled, percentiles of all of the problem's images: a channel's scale was
    fitted to those that the search has seen, and others may have values far beyond. One that only a sigmoid reads
    begins where the sigmoid is not flat. Gradients taken with outliers in a few tensors would mislead the next round
    for all.
    """
    graph = problem.graph
    chosen: Chosen = {}
    new, all_groups = [], groups(graph)
    for group in all_groups:
        known = keep.get(graph.tensors[group.members[0]].name)
        scaled = [ranges[t] for t in group.members if t in ranges]
        if scaled:
            chosen[group] = group_quant(group, *scaled[0], "percentile", bits=problem.bits)
        elif known is not None:
            fits = suits(group, known)
            chosen[group] = known if fits else group_quant(group, *ends(known), "minmax", bits=problem.bits)
        else:
            new.append(group)
    for group, (low, high) in observe(problem, new, "percentile").items():
        if {u.op for t in group.members for u in graph.users(t)} == {"LOGISTIC"}:
            low, high = max(low, -SIGMOID_FLAT), min(high, SIGMOID_FLAT)
        chosen[group] = group_quant(group, low, high, "percentile", bits=problem.bits)
    return _with_pixels(problem, {g: chosen[g] for g in all_groups})


def rounded(graph: Graph, chosen: Chosen) -> list[int]:
    """Tensors whose rounding the objective counts."""
    return [t for g in chosen if g.fixed is None for t in g.roots if not graph.tensors[t].is_constant]


def unchanged(before: Problem, after: Graph, quants: Mapping[str, TensorQuant]) -> dict[str, TensorQuant]:
    """Quantizations of the tensors whose values the folds did not change, seen on one image."""
    same = {}
    old, new = (_values(graph, before.images[:1]) for graph in (before.graph, after))
    for tensor in after.tensors.values():
        x, y, quant = old.get(tensor.name), new.get(tensor.name), quants.get(tensor.name)
        if quant is None:
            continue
        if x is None or y is None:  # a constant operand
            known = before.graph.by_name.get(tensor.name)
            is_same = known is not None and known.data is tensor.data
        else:
            is_same = x.shape == y.shape and float((x - y).abs().max()) <= 1e-4 * float(x.abs().max())
        if is_same:
            same[tensor.name] = quant
    return same


def _values(graph: Graph, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """All activations of the float graph, by name."""
    with torch.no_grad():
        found = Executor(graph, exact=True).run(images, None, [t.id for t in graph.activations()])
    return {graph.tensors[t].name: x for t, x in found.items()}
