"""qhyvit: scale, granularity and scheme of every tensor by the Hessian-guided hybrid objective, then its extras.

Rounds of: gradients of KL(float || quantized) with everything quantized, then for every group of tensors that
share a scale the range and scheme with the least weighted squared error. The weight of an element is its squared
gradient, or, inside a bridge block, what its error does to the block's output (Q-HyViT, equation of the hybrid
reconstruction). After the first round the same objective decides which tensors get a scale a channel, through
folds. At the end weights and biases are solved in closed form, in execution order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qhyvit.errors import UsageError
from qhyvit.folds import all_folds
from qhyvit.graph.ir import Graph
from qhyvit.methods import _folding
from qhyvit.methods._blocks import bridge_blocks
from qhyvit.methods._hessian import Statistics, float_logits, gather, mean_kl
from qhyvit.methods._learn import learn
from qhyvit.methods._observe import observe
from qhyvit.methods._problem import Method, Problem, Solution
from qhyvit.methods._ranges import finish, grid_for, group_quant, minmax_weights, spread
from qhyvit.methods._reconstruct import reconstruct
from qhyvit.methods._weights import search_weights
from qhyvit.observers._histogram import merge
from qhyvit.observers._search import Found, search
from qhyvit.plan import FoldNote, TensorQuant, quants_from_json, quants_to_json
from qhyvit.tflite.legal import Group, groups

Chosen = dict[Group, TensorQuant]

DEFAULTS: dict[str, Any] = {
    "rounds": 4,  # of gradients and ranges
    "ends": "independent",  # both ends of a range searched; "joint": multiples of the min-max range, as in the paper
    "scheme": "search",  # or "asymmetric", "symmetric"
    "folds": "all",  # or "none", or names of folds with commas: channel_scale,silu_split
    "bridge": True,  # block outputs as the objective inside bridge blocks
    "ridge": 1.0,  # weights that undo the error before them; the pull towards the float ones; 0: off
    "rounding": True,  # weights rounded with care (GPTQ)
    "bias": True,  # biases take the mean error
    "learn": 128,  # steps of learned scales at the end, on all images; 0: off
    "search_images": 32,  # of all, for everything before
}
CHOICES = {"ends": ("independent", "joint"), "scheme": ("search", "asymmetric", "symmetric")}


def _check(options: Mapping[str, Any]) -> None:
    for name, allowed in CHOICES.items():
        if options[name] not in allowed:
            raise UsageError(f"option {name}={options[name]!r}: must be one of {', '.join(allowed)}")
    for fold in _fold_names(options):
        if fold not in all_folds():
            raise UsageError(f"option folds: no fold {fold!r}; there are all, none, {', '.join(all_folds())}")


def _fold_names(options: Mapping[str, Any]) -> list[str]:
    wanted = str(options["folds"])
    return list(all_folds()) if wanted == "all" else [] if wanted == "none" else wanted.split(",")


@dataclass(frozen=True)
class _Ranges:
    """How a group's range is searched."""

    bits: int
    options: Mapping[str, Any]

    def best(self, group: Group, statistics: Statistics) -> tuple[Found, bool] | None:
        """Range and scheme with the least weighted error over all roots; True: symmetric; None without gradients."""
        seen = [t for t in group.roots if t in statistics.peak]
        rows = [row for t in seen for row in statistics.histograms[t].channels() if row.s0.sum() > 0]
        if group.fixed is not None or not rows:
            return None
        row = rows[0] if len(rows) == 1 else merge(rows, [1.0] * len(rows))
        joint, scheme = self.options["ends"] == "joint", self.options["scheme"]
        symmetric = search(row, grid_for(self.bits, symmetric=True), symmetric=True, joint=joint)
        if group.symmetric or (scheme == "symmetric" and not group.low_at_zero):
            return symmetric, True
        pin = 0.0 if group.low_at_zero else None
        free = search(row, grid_for(self.bits, symmetric=False), pin_low=pin, joint=joint)
        either = scheme == "search" and not group.low_at_zero
        return (symmetric, True) if either and symmetric.error < free.error else (free, False)

    def all(self, all_groups: Sequence[Group], statistics: Statistics, start: Chosen) -> tuple[Chosen, float]:
        """One round: the best range of every group that carries gradients; the objective of the whole."""
        chosen, total = dict(start), 0.0
        for group in all_groups:
            best = self.best(group, statistics)
            if best is not None:
                found, symmetric = best
                total += found.error
                chosen[group] = group_quant(
                    group, found.low, found.high, "hessian", found.error, symmetric=symmetric, bits=self.bits
                )
        return chosen, total


def _start(problem: Problem, keep: Mapping[str, TensorQuant] | None = None) -> Chosen:
    """Min-max ranges, or what ``keep`` holds for tensors that are as they were."""
    all_groups = groups(problem.graph)
    chosen = {}
    for group, (low, high) in observe(problem, all_groups, "minmax").items():
        known = (keep or {}).get(problem.graph.tensors[group.members[0]].name)
        chosen[group] = known or group_quant(group, low, high, "minmax", bits=problem.bits)
    return chosen


def _wanted(graph: Graph, chosen: Chosen) -> list[int]:
    """Tensors whose rounding the objective counts."""
    return [t for g in chosen if g.fixed is None for t in g.roots if not graph.tensors[t].is_constant]


def _unchanged(before: Graph, after: Graph, quants: Mapping[str, TensorQuant]) -> dict[str, TensorQuant]:
    """Quantizations of activations whose values the folds did not change: their producers' constants are the same."""
    changed = {t for t in after.tensors if t in before.tensors and after.tensors[t].data is not before.tensors[t].data}
    touched: set[int] = set()
    for node in after.nodes:  # a changed constant divides its node's output, or undoes a division of its input
        if any(i in changed for i in node.inputs):
            touched |= {*node.outputs, *(i for i in node.inputs if i >= 0)}
        elif any(i in touched for i in node.inputs):
            touched |= set(node.outputs)
    return {t.name: quants[t.name] for t in after.tensors.values() if t.id not in touched and t.name in quants}


@dataclass
class _Search:
    """The state between rounds; every round is kept in the problem's store and not made twice."""

    problem: Problem
    options: Mapping[str, Any]
    notes: tuple[FoldNote, ...] = ()

    def run(self) -> Solution:
        """All rounds, then the closed form."""
        rounds, problem = int(self.options["rounds"]), self.problem
        self.problem = problem.some(int(self.options["search_images"]))
        chosen: Chosen | None = None
        weights = minmax_weights(problem.graph, problem.bits)
        for number in range(rounds):
            kept = problem.store.get(f"round{number + 1}")
            if kept is not None:
                self._fold([_folding.from_facts(c) for c in kept.facts["folds"]])
                known = quants_from_json(kept.facts["quants"])
                graph = self.problem.graph
                chosen = {g: known[graph.tensors[g.members[0]].name] for g in groups(graph)}
                weights = {n: q for n, q in known.items() if q.axis is not None}
                continue
            chosen, weights, folded = self._round(number, chosen or _start(self.problem), weights)
            quants = {**spread(self.problem.graph, chosen), **weights}
            facts = {"quants": quants_to_json(quants), "folds": [_folding.to_facts(c) for c in folded]}
            problem.store.put(f"round{number + 1}", facts)
        graph = self.problem.graph
        quants = finish(graph, {**spread(graph, chosen or _start(self.problem)), **weights})
        solution = self._solved(quants, "op")
        if self.options["learn"]:
            # ranges move with the weights as they will be, then the weights are solved once more for those ranges
            learned = self._solved(self._learned(replace(problem, graph=graph), solution), "again")
            solution = self._better(solution, learned)
        return solution

    def _better(self, before: Solution, after: Solution) -> Solution:
        """The one with the smaller KL on the calibration images: learning must never harm."""
        problem = self.problem
        target = float_logits(problem.graph, problem)
        first, last = (mean_kl(problem.on(s.shipped), s.tensors, target) for s in (before, after))
        problem.log(f"KL {first:.4f}, with learned scales {last:.4f}")
        return after if last < first else before

    def _solved(self, quants: Mapping[str, TensorQuant], pieces: str) -> Solution:
        """Weights and biases in closed form, as far as the options want them."""
        if not (self.options["ridge"] or self.options["rounding"] or self.options["bias"]):
            return Solution(self.problem.graph, quants, self.notes)
        constants, found = reconstruct(self.problem, quants, self.options, pieces)
        return Solution(self.problem.graph, found, self.notes, constants)

    def _learned(self, problem: Problem, solution: Solution) -> Mapping[str, TensorQuant]:
        kept = problem.store.get("learned")
        if kept is not None:
            return quants_from_json(kept.facts)
        quants = learn(problem, solution.shipped, solution.tensors, int(self.options["learn"]))
        problem.store.put("learned", quants_to_json(quants))
        return quants

    def _round(
        self, number: int, chosen: Chosen, weights: Mapping[str, TensorQuant]
    ) -> tuple[Chosen, dict[str, TensorQuant], list[_folding.Candidate]]:
        """Gradients, ranges, and in the second round the folds."""
        problem, graph = self.problem, self.problem.graph
        names = _fold_names(self.options) if number == 1 else []
        places = [(name, place) for name, place in _folding.all_places(graph) if name in names]
        by_channel = {t for _, place in places for t in place.tensors}
        quants = finish(graph, {**spread(graph, chosen), **weights})
        blocks = bridge_blocks(graph) if self.options["bridge"] else []
        label = f"round {number + 1} of {self.options['rounds']}"
        statistics = gather(problem, quants, _wanted(graph, chosen), by_channel, label, blocks)
        chosen, total = _Ranges(problem.bits, self.options).all(list(chosen), statistics, chosen)
        problem.log(f"round {number + 1}: KL before {statistics.kl:.4f}, objective {total:.4g}")
        candidates = _folding.candidates(graph, places, statistics, total, problem.bits)
        if candidates:
            before = len(self.notes)
            self._fold(candidates)
            keep = _unchanged(graph, self.problem.graph, spread(graph, chosen))
            chosen = _start(self.problem, keep)
            for note in self.notes[before:]:
                problem.log(f"fold {note.fold} at {note.place}: objective -{note.gain / total:.1%}")
        energies = {} if candidates else {t: e.double().numpy() for t, e in statistics.energy.items()}
        return chosen, search_weights(self.problem.graph, energies, problem.bits), candidates

    def _fold(self, candidates: Sequence[_folding.Candidate]) -> None:
        graph, notes = _folding.apply(self.problem.graph, candidates)
        self.problem, self.notes = self.problem.on(graph), (*self.notes, *notes)


def find(problem: Problem, options: Mapping[str, Any]) -> Solution:
    """Min-max everywhere, rounds of ranges, folds by the objective, weights and biases in closed form.

    Raises:
        UsageError: an option has a value that it cannot have.
    """
    _check(options)
    return _Search(problem, options).run()


METHOD = Method("qhyvit", "Hessian-guided hybrid search of scale, granularity and scheme", find, DEFAULTS)
