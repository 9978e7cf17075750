"""qhyvit: scale, granularity and scheme of every tensor by the Hessian-guided hybrid objective, then its extras.

Rounds of: gradients of KL(float || quantized) with everything quantized, then for every group of tensors that
share a scale the range and scheme with the least weighted squared error. The weight of an element is its squared
gradient, or, inside a bridge block, what its error does to the block's output (Q-HyViT, equation of the hybrid
reconstruction). After the first round the same objective decides which tensors get a scale a channel, through
folds. At the end weights and biases are solved in closed form, in execution order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from qhyvit.graph import edit
from qhyvit.graph.ir import INT8, Graph
from qhyvit.lowering.contracts import Group, groups
from qhyvit.lowering.placement import Worth
from qhyvit.lowering.profiles import ids_of, may_be_float, widened, with_islands, with_profile
from qhyvit.methods import _folding, _islands, _wide
from qhyvit.methods._blocks import bridge_blocks
from qhyvit.methods._hessian import Statistics, gather, mean_distance, position_weights
from qhyvit.methods._learn import learn
from qhyvit.methods._method import Method
from qhyvit.methods._observe import observe
from qhyvit.methods._pixels import PIXELS, pixel_quant
from qhyvit.methods._problem import Problem, Solution
from qhyvit.methods._qhyvit_options import QhyvitOptions
from qhyvit.methods._ranges import ends, finish, grid_for, group_quant, minmax_weights, spread, suits
from qhyvit.methods._reconstruct import ClosedForm, reconstruct
from qhyvit.methods._weights import search_weights
from qhyvit.observers._histogram import Row, merge
from qhyvit.observers._search import Found, extremes, search
from qhyvit.ops._layer import layers
from qhyvit.plan import FoldNote, TensorQuant, quants_from_json, quants_to_json
from qhyvit.sim.run import Executor

Chosen = dict[Group, TensorQuant]

NEAR = 0.99  # of a floor
SIGMOID_FLAT = 8.0  # beyond, the sigmoid is within a code of 0 or 1
FOLD_ROUNDS = (1, 2)  # once ranges are chosen; and again, for what the first folds hid


def _pinned(group: Group, row: Row) -> float | None:
    """Where the lower end of a group's range has to lie, None: anywhere.

    A floor that values come near: in an unrolled softmax 1 + ELU weighs thousands of positions, which are nearly all
    nothing; what the grid misses of -1 counts as often.
    """
    if group.low_at_zero:
        return 0.0
    return group.floor if group.floor is not None and extremes(row)[0] < NEAR * group.floor else None


@dataclass(frozen=True)
class _Ranges:
    """How a group's range is searched."""

    bits: int
    options: QhyvitOptions

    def best(self, group: Group, statistics: Statistics) -> tuple[Found, bool] | None:
        """Range and scheme with the least weighted error over all roots; True: symmetric; None without gradients."""
        seen = [t for t in group.roots if t in statistics.peak]
        rows = [row for t in seen for row in statistics.histograms[t].channels() if row.s0.sum() > 0]
        if group.fixed is not None or not rows:
            return None
        row = rows[0] if len(rows) == 1 else merge(rows, [1.0] * len(rows))
        joint, scheme = self.options.ends == "joint", self.options.scheme
        centred = grid_for(self.bits, symmetric=True, right=group.symmetric)
        symmetric = search(row, centred, symmetric=True, joint=joint)
        if group.symmetric or (scheme == "symmetric" and not group.low_at_zero):
            return symmetric, True
        pin = _pinned(group, row)
        free = search(row, grid_for(self.bits, symmetric=False), pin_low=pin, joint=joint)
        either = scheme == "search" and pin is None
        return (symmetric, True) if either and symmetric.error < free.error else (free, False)

    def all(self, all_groups: Sequence[Group], statistics: Statistics, start: Chosen) -> tuple[Chosen, float]:
        """One round: the best range of every group that carries gradients; the objective of the whole."""
        chosen, total = dict(start), 0.0
        for group in all_groups:
            best = None if start[group].choice.observer == PIXELS else self.best(group, statistics)
            if best is not None:
                found, symmetric = best
                total += found.error
                chosen[group] = group_quant(
                    group, found.low, found.high, "hessian", found.error, symmetric=symmetric, bits=self.bits
                )
        return chosen, total


def _start(problem: Problem) -> Chosen:
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


def _resume(problem: Problem, keep: Mapping[str, TensorQuant], ranges: Mapping[int, tuple[float, float]]) -> Chosen:
    """Ranges behind folds: what ``keep`` holds for tensors that are as they were, ``ranges`` for those scaled.

    For new tensors percentiles; one that only a sigmoid reads begins where the sigmoid is not flat. Gradients taken
    with outliers in a few tensors would mislead the next round for all.
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


def _marks(graph: Graph) -> tuple[frozenset[int], ...]:
    """What is outside int8."""
    return graph.islands, graph.widened


def _wanted(graph: Graph, chosen: Chosen) -> list[int]:
    """Tensors whose rounding the objective counts."""
    return [t for g in chosen if g.fixed is None for t in g.roots if not graph.tensors[t].is_constant]


def _unchanged(before: Problem, after: Graph, quants: Mapping[str, TensorQuant]) -> dict[str, TensorQuant]:
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


@dataclass
class _Search:
    """The state between rounds; every round is kept in the problem's store and not made twice."""

    problem: Problem
    options: QhyvitOptions
    notes: tuple[FoldNote, ...] = ()
    placed: list[str] = field(default_factory=list)  # float tensors when the last folds were made
    positions: Mapping[int, torch.Tensor] = field(default_factory=dict)  # what counts in the closed form

    def run(self) -> Solution:
        """All rounds, then the closed form."""
        problem = self.problem
        self.problem = problem.some(self.options.search_images)
        chosen, weights = self._rounds(self.options.rounds)
        graph = self.problem.graph
        quants = finish(graph, {**spread(graph, chosen), **weights})
        self.positions = position_weights(self.problem, quants, [layer.out for layer in layers(graph)])
        solution = self._solved(quants, "op")
        if self.options.learn:
            # ranges move with the weights as they will be, then the weights are solved once more for those ranges
            learned = self._learned(replace(problem, graph=graph), solution)
            solution = self._better(solution, self._solved(learned, "again"))
        return solution

    def _rounds(self, count: int) -> tuple[Chosen, Mapping[str, TensorQuant]]:
        """Ranges and weights after ``count`` rounds, or before one of them if the distance was smaller there.

        Every group chooses as if the others stayed; where many move at once the network can come out worse.
        """
        weights: Mapping[str, TensorQuant] = minmax_weights(self.problem.graph, self.problem.bits)
        chosen = _start(self.problem)
        seen: list[tuple[float, Chosen, Mapping[str, TensorQuant]]] = []
        for number in range(count):
            before = chosen, weights
            chosen, weights, edited, distance = self._kept(number) or self._made(number, chosen, weights)
            seen = [] if edited else [*seen, (distance, *before)]
        if not seen:
            return chosen, weights
        graph = self.problem.graph
        quants = finish(graph, {**spread(graph, chosen), **weights})
        seen.append((mean_distance(self.problem, quants), chosen, weights))
        self.problem.log("distance of the rounds since the last fold: " + ", ".join(f"{s[0]:.4f}" for s in seen))
        return min(seen, key=lambda s: s[0])[1:]

    def _kept(self, number: int) -> tuple[Chosen, Mapping[str, TensorQuant], bool, float] | None:
        """A round that an earlier run made."""
        kept = self.problem.store.get(f"round{number + 1}")
        if kept is None:
            return None
        self.problem = self.problem.on(self._with_islands(kept.facts["placed"]))
        self._fold([_folding.from_facts(c) for c in kept.facts["folds"]])
        graph = self._with_islands(kept.facts["floats"])
        self.problem = self.problem.on(widened(graph, ids_of(graph, kept.facts["wide"])))
        known, graph = quants_from_json(kept.facts["quants"]), self.problem.graph
        chosen = {g: known[graph.tensors[g.members[0]].name] for g in groups(graph)}
        weights = {n: q for n, q in known.items() if q.axis is not None}
        return chosen, weights, bool(kept.facts["edited"]), float(kept.facts["distance"])

    def _made(
        self, number: int, chosen: Chosen, weights: Mapping[str, TensorQuant]
    ) -> tuple[Chosen, Mapping[str, TensorQuant], bool, float]:
        before = self.problem.graph
        self.placed = [before.tensors[t].name for t in sorted(before.islands)]
        chosen, weights, folded, distance = self._round(number, chosen, weights)
        graph = self.problem.graph
        edited = bool(folded) or _marks(graph) != _marks(before)
        facts = {
            "quants": quants_to_json({**spread(graph, chosen), **weights}), "distance": distance, "edited": edited,
            "wide": [graph.tensors[t].name for t in sorted(graph.widened)],
            "floats": [graph.tensors[t].name for t in sorted(graph.islands)], "placed": self.placed,
            "folds": [_folding.to_facts(c) for c in folded],
        }  # fmt: skip
        self.problem.store.put(f"round{number + 1}", facts)
        return chosen, weights, edited, distance

    def _better(self, before: Solution, after: Solution) -> Solution:
        """The one with the smaller distance on the calibration images: learning must never harm."""
        problem = self.problem
        first, last = (mean_distance(problem.on(s.shipped), s.tensors) for s in (before, after))
        problem.log(f"distance {first:.4f}, with learned scales {last:.4f}")
        return after if last < first else before

    def _solved(self, quants: Mapping[str, TensorQuant], pieces: str) -> Solution:
        """Weights and biases in closed form, as far as the options want them."""
        wanted = ClosedForm(self.options.ridge, self.options.rounding, self.options.bias)
        if not (wanted.ridge or wanted.rounding or wanted.bias):
            return Solution(self.problem.graph, quants, self.notes)
        constants, found = reconstruct(self.problem, quants, wanted, pieces, self.positions)
        return Solution(self.problem.graph, found, self.notes, constants)

    def _learned(self, problem: Problem, solution: Solution) -> dict[str, TensorQuant]:
        """Learned scales, after as many passes over the images as the option says."""
        kept = problem.store.get("learn")
        if kept is not None:
            return quants_from_json(kept.facts)
        steps = self.options.learn * problem.batch_count
        learned = learn(problem, solution.shipped, solution.tensors, steps)
        problem.store.put("learn", quants_to_json(learned))
        return learned

    def _round(
        self, number: int, chosen: Chosen, weights: Mapping[str, TensorQuant]
    ) -> tuple[Chosen, dict[str, TensorQuant], list[_folding.Candidate], float]:
        """Gradients, ranges, and in some rounds the folds."""
        problem, graph = self.problem, self.problem.graph
        names = self.options.fold_names if number in FOLD_ROUNDS else []
        places = [(name, place) for name, place in _folding.all_places(graph) if name in names]
        by_channel = {t for _, place in places for t in place.tensors}
        quants = finish(graph, {**spread(graph, chosen), **weights})
        blocks = bridge_blocks(graph) if self.options.bridge else []
        label = f"round {number + 1} of {self.options.rounds}"
        is_cpu = problem.profile == "cpu"
        may_widen = number in FOLD_ROUNDS and problem.bits == 8 and not is_cpu
        budget = self.options.int16_ms if may_widen else 0.0
        own = _islands.candidates(graph) if is_cpu else _wide.candidates(graph, problem.latency) if budget else ()
        wanted = [*_wanted(graph, chosen), *own]
        statistics = gather(problem, quants, wanted, by_channel, label, blocks)
        chosen, total = _Ranges(problem.bits, self.options).all(list(chosen), statistics, chosen)
        problem.log(f"round {number + 1}: distance before {statistics.distance:.4f}, objective {total:.4g}")
        wide = _wide.choose(graph, statistics, total, budget, problem.latency) if budget else {}
        # once: of tensors that are float by then, nothing is known
        needs_int16 = budget > 0 and _islands.is_far(statistics.distance)
        places_islands = number == FOLD_ROUNDS[0] and (is_cpu or needs_int16)
        per_ms = total * _islands.gain_per_ms(graph, problem.latency, statistics.distance)
        worth = _islands.worth(graph, statistics, spread(graph, chosen), per_ms) if places_islands else None
        if worth is not None:  # a norm that becomes float takes a stream's scale in another way
            self.problem = problem.on(self._islands(graph, worth))
            places = [(name, place) for name, place in _folding.all_places(self.problem.graph) if name in names]
        latency = problem.latency.outside_int8(int16=not is_cpu)
        candidates = _folding.candidates(self.problem.graph, places, statistics, total, problem.bits, latency)
        if candidates or wide or _marks(self.problem.graph) != _marks(graph):
            chosen = self._edit(problem, candidates, wide, worth, chosen, total)
        energies = {} if candidates else {t: e.double().numpy() for t, e in statistics.energy.items()}
        return chosen, search_weights(self.problem.graph, energies, problem.bits), candidates, statistics.distance

    def _with_islands(self, names: Iterable[str]) -> Graph:
        return with_islands(self.problem.graph, self.problem.profile, ids_of(self.problem.graph, names))

    def _islands(self, graph: Graph, worth: Worth) -> Graph:
        return with_profile(graph, self.problem.profile, self.problem.latency, worth)

    def _edit(
        self, problem: Problem, candidates: Sequence[_folding.Candidate], wide: Mapping[int, tuple[float, float]],
        worth: Worth | None, chosen: Chosen, total: float,
    ) -> Chosen:  # fmt: skip
        """Mark the int16 nodes, make the folds, place the islands; ranges of what is as it was, and of what is new.

        Args:
            problem: as it was before this round.
        """
        before, names = len(self.notes), [problem.graph.tensors[t].name for t in wide]
        self.problem = problem.on(widened(self.problem.graph, wide))
        graph = self.problem.graph
        self.placed = [graph.tensors[t].name for t in sorted(graph.islands)]
        self._fold(candidates)
        if worth is not None and problem.profile == "cpu":  # behind the folds: what they put in has a choice too
            self.problem = self.problem.on(self._islands(self.problem.graph, worth))
        for t in sorted(self.problem.graph.islands - problem.graph.islands):
            what = "float kernel for" if problem.profile == "cpu" else "island of int16 at"
            problem.log(f"{what} {self.problem.graph.tensors[t].name}")
        for note in self.notes[before:]:
            problem.log(f"fold {note.fold} at {note.place}: objective -{note.gain / total:.1%}")
        for name in names:
            problem.log(f"int16 kernel for {name}")
        keep = _unchanged(problem, self.problem.graph, spread(problem.graph, chosen))
        ranges = {t: r for c in candidates for t, r in zip(c.place.tensors, c.ranges, strict=True)}
        return _resume(self.problem, keep, {**ranges, **wide})

    def _fold(self, candidates: Sequence[_folding.Candidate]) -> None:
        self.problem, notes = _folding.apply(self.problem, candidates)
        graph = self.problem.graph
        lost = {t for t in graph.islands if not may_be_float(graph, t)}  # a mean became a linear layer
        graph = edit.computed_in(graph, lost, INT8, INT8)
        self.problem, self.notes = self.problem.on(graph), (*self.notes, *notes)


def find(problem: Problem, options: QhyvitOptions) -> Solution:
    """Min-max everywhere, rounds of ranges, folds by the objective, weights and biases in closed form."""
    return _Search(problem, options).run()


METHOD = Method("qhyvit", "Hessian-guided hybrid search of scale, granularity and scheme", find, QhyvitOptions)
