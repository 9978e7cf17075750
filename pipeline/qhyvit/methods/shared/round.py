"""One round of ``qhyvit``: gradients, ranges, and in some rounds the edits that the objective wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qhyvit.folds.shared.fold import Place
from qhyvit.graph import edit
from qhyvit.graph.ir import INT8, Graph
from qhyvit.lowering.placement import Worth
from qhyvit.lowering.profiles import may_be_float, widened, with_profile
from qhyvit.methods.shared import folding, int16_outputs, islands
from qhyvit.methods.shared.bridge_blocks import bridge_blocks
from qhyvit.methods.shared.hessian import Statistics, gather
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.qhyvit_options import QhyvitOptions
from qhyvit.methods.shared.range_search import Chosen, RangeSearch, ranges_behind, rounded, unchanged
from qhyvit.methods.shared.ranges import finish, spread
from qhyvit.methods.shared.state import State
from qhyvit.methods.shared.weight_rounding import search_weights
from qhyvit.plan import FoldNote

FOLD_ROUNDS = (1, 2)  # once ranges are chosen; and again, for what the first folds hid


@dataclass(frozen=True)
class _Edits:
    """What the objective wants of the graph.

    Args:
        folds: scales of channels, largest gain first.
        wide: outputs that kernels write in int16, with the best int8 range behind each.
        worth: what accuracy is worth where islands are placed; None: they stay as they are.
    """

    folds: Sequence[folding.Candidate]
    wide: Mapping[int, tuple[float, float]]
    worth: Worth | None


@dataclass(frozen=True)
class Round:
    """Round ``number``, from 0 on; a phase's ``run``."""

    number: int
    options: QhyvitOptions

    def __call__(self, problem: Problem, state: State) -> State:
        """Better ranges and weights for the graph, or an edited graph with ranges to begin with."""
        problem = problem.searched(self.options.search_images).on(state.graph)
        statistics = self._statistics(problem, state)
        search = RangeSearch(
            problem.bits, self.options.ends == "joint", self.options.scheme, wide=problem.measure.thorough
        )
        chosen, total = search.all(list(state.chosen), statistics, state.chosen)
        problem.log(f"round {self.number + 1}: distance before {statistics.distance:.4f}, objective {total:.4g}")
        far = state.far or (self.number == FOLD_ROUNDS[0] and statistics.distance > problem.measure.far)
        edits = self._wanted(problem, statistics, chosen, total, far=far)
        graph, notes = problem.graph, state.notes
        if edits is not None:
            graph, chosen, made = self._edited(problem, edits, chosen, total)
            notes = (*notes, *made)
        energies = {} if edits and edits.folds else {t: e.double().numpy() for t, e in statistics.energy.items()}
        weights = search_weights(graph, energies, problem.bits)
        tried = () if edits is not None else (*state.tried, (statistics.distance, state.quants))
        quants = {**spread(graph, chosen), **weights}
        return replace(state, graph=graph, quants=quants, notes=notes, tried=tried, far=far)

    @property
    def _folds(self) -> list[str]:
        return self.options.fold_names if self.number in FOLD_ROUNDS else []

    def _places(self, graph: Graph) -> list[tuple[str, Place]]:
        return [(name, place) for name, place in folding.all_places(graph) if name in self._folds]

    def _budget(self, problem: Problem) -> float:
        """Milliseconds that int16 kernels may add in this round."""
        may_widen = self.number in FOLD_ROUNDS and problem.bits == 8 and problem.profile != "cpu"
        return self.options.int16_ms if may_widen else 0.0

    def _statistics(self, problem: Problem, state: State) -> Statistics:
        graph = problem.graph
        by_channel = {t for _, place in self._places(graph) for t in place.divided}
        blocks = bridge_blocks(graph) if self.options.bridge else []
        own = list(islands.candidates(graph)) if problem.profile == "cpu" else []
        if self._budget(problem):
            own = int16_outputs.candidates(graph, problem.latency)
        label = f"round {self.number + 1} of {self.options.rounds}"
        quants = finish(graph, state.quants)
        return gather(problem, quants, [*rounded(graph, state.chosen), *own], by_channel, label, blocks)

    def _wanted(
        self, problem: Problem, statistics: Statistics, chosen: Chosen, total: float, *, far: bool
    ) -> _Edits | None:
        """The edits of this round; None where there are none."""
        graph, budget, is_cpu = problem.graph, self._budget(problem), problem.profile == "cpu"
        wide = int16_outputs.choose(graph, statistics, total, budget, problem.latency) if budget else {}
        worth, placed = None, graph
        # again behind the first folds only where accuracy is short
        again = self.number in FOLD_ROUNDS and far and (is_cpu or budget > 0)
        if again or (self.number == FOLD_ROUNDS[0] and is_cpu):
            per_ms = total * islands.gain_per_ms(graph, problem.latency, far=far)
            worth = islands.worth(graph, statistics, spread(graph, chosen), per_ms)
            placed = with_profile(graph, problem.profile, problem.latency, worth)
        # a norm that becomes float takes a stream's scale in another way
        places, latency = self._places(placed), problem.latency.outside_int8(int16=not is_cpu)
        folds = folding.candidates(placed, places, statistics, total, problem.bits, latency)
        moved = placed.islands != graph.islands
        return _Edits(folds, wide, worth) if folds or wide or moved else None

    def _edited(
        self, problem: Problem, edits: _Edits, chosen: Chosen, total: float
    ) -> tuple[Graph, Chosen, tuple[FoldNote, ...]]:
        """The graph behind the edits; ranges of what is as it was, and of what is new; the folds that were made."""
        before, is_cpu = problem.graph, problem.profile == "cpu"
        graph = before
        if edits.worth is not None:
            graph = with_profile(graph, problem.profile, problem.latency, edits.worth)
        folded, notes = folding.apply(problem.on(widened(graph, edits.wide)), edits.folds)
        graph = folded.graph
        lost = {t for t in graph.islands if not may_be_float(graph, t)}  # a mean became a linear layer
        graph = edit.computed_in(graph, lost, INT8, INT8)
        if edits.worth is not None and is_cpu and self.number == FOLD_ROUNDS[0]:  # what folds put in has a choice too
            graph = with_profile(graph, problem.profile, problem.latency, edits.worth)
        for t in sorted(graph.islands - before.islands):
            problem.log(f"{'float kernel for' if is_cpu else 'island of int16 at'} {graph.tensors[t].name}")
        for note in notes:
            problem.log(f"fold {note.fold} at {note.place}: objective -{note.gain / total:.1%}")
        for t in edits.wide:
            problem.log(f"int16 kernel for {before.tensors[t].name}")
        keep = unchanged(problem, graph, spread(before, chosen))
        made = {(note.fold, note.place) for note in notes}
        ranges: dict[int, tuple[float, float]] = {}
        for each in edits.folds:
            ranges |= each.ranges if (each.fold, each.place.name) in made else {}
        return graph, ranges_behind(problem.on(graph), keep, {**ranges, **edits.wide}), notes
