"""The edits of a round: folds, int16 outputs and islands that the objective wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qhyvit.folds.shared.fold import Place
from qhyvit.graph import edit
from qhyvit.graph.ir import INT8, Graph
from qhyvit.lowering.placement import Worth
from qhyvit.lowering.profiles import may_be_float, placed, widened
from qhyvit.methods.shared import folding, int16_outputs, islands
from qhyvit.methods.shared.hessian import Statistics
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.qhyvit_options import QhyvitOptions
from qhyvit.methods.shared.range_search import Chosen, ranges_behind, unchanged
from qhyvit.methods.shared.ranges import spread
from qhyvit.plan import FoldNote

FOLD_ROUNDS = (1, 2)  # once ranges are chosen; and again, for what the first folds hid


@dataclass(frozen=True)
class Edits:
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
class Editor:
    """Finds and makes the edits of round ``number``, from 0 on."""

    number: int
    options: QhyvitOptions

    def places(self, graph: Graph) -> list[tuple[str, Place]]:
        """Where the folds of this round could be made, with their names."""
        if self.number not in FOLD_ROUNDS:
            return []
        return [(name, place) for name, place in folding.all_places(graph) if name in self.options.fold_names]

    def outside_int8(self, problem: Problem) -> list[int]:
        """Tensors that may leave int8 in this round, by float or by int16 kernels."""
        if self._budget(problem):
            return int16_outputs.candidates(problem.graph, problem.latency)
        return list(islands.candidates(problem.graph)) if problem.target.floats else []

    def _budget(self, problem: Problem) -> float:
        """Milliseconds that int16 kernels may add in this round."""
        may_widen = self.number in FOLD_ROUNDS and problem.bits == 8 and not problem.target.floats
        return self.options.int16_ms if may_widen else 0.0

    def wanted(
        self, problem: Problem, statistics: Statistics, chosen: Chosen, total: float, *, far: bool
    ) -> Edits | None:
        """The edits of this round; None where there are none."""
        graph, budget, is_cpu = problem.graph, self._budget(problem), problem.target.floats
        wide = int16_outputs.choose(graph, statistics, total, budget, problem.latency) if budget else {}
        worth, ahead = None, graph
        # again behind the first folds only where accuracy is short
        again = self.number in FOLD_ROUNDS and far and (is_cpu or budget > 0)
        if again or (self.number == FOLD_ROUNDS[0] and is_cpu):
            per_ms = total * islands.gain_per_ms(graph, problem.latency, far=far)
            worth = islands.worth(graph, statistics, spread(graph, chosen), per_ms)
            ahead = placed(graph, problem.target, worth)
        # a norm that becomes float takes a stream's scale in another way
        places, latency = self.places(ahead), problem.latency.outside_int8(int16=not is_cpu)
        folds = folding.candidates(ahead, places, statistics, total, problem.bits, latency)
        moved = ahead.islands != graph.islands
        return Edits(folds, wide, worth) if folds or wide or moved else None

    def apply(
        self, problem: Problem, edits: Edits, chosen: Chosen, total: float
    ) -> tuple[Graph, Chosen, tuple[FoldNote, ...]]:
        """The graph behind the edits; ranges of what is as it was, and of what is new; the folds that were made.

        Args:
            problem: with all of its images, which new ranges have to hold.
        """
        before, is_cpu = problem.graph, problem.target.floats
        graph = before
        if edits.worth is not None:
            graph = placed(graph, problem.target, edits.worth)
        folded, notes = folding.apply(problem.on(widened(graph, edits.wide)), edits.folds)
        graph = folded.graph
        lost = {t for t in graph.islands if not may_be_float(graph, t)}  # a mean became a linear layer
        graph = edit.computed_in(graph, lost, INT8, INT8)
        if edits.worth is not None and is_cpu and self.number == FOLD_ROUNDS[0]:  # what folds put in has a choice too
            graph = placed(graph, problem.target, edits.worth)
        for t in sorted(graph.islands - before.islands):
            problem.log(f"{'float kernel for' if is_cpu else 'island of int16 at'} {graph.tensors[t].name}")
        for note in notes:
            problem.log(f"fold {note.fold} at {note.place}: objective -{note.gain / total:.1%}")
        for t in edits.wide:
            problem.log(f"int16 kernel for {before.tensors[t].name}")
        keep = unchanged(problem, graph, spread(before, chosen))
        return graph, ranges_behind(problem.on(graph), keep, edits.wide), notes
