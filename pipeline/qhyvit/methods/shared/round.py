"""One round of ``qhyvit``: gradients, ranges, and in some rounds the edits that the objective wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from qhyvit.methods.shared.bridge_blocks import bridge_blocks
from qhyvit.methods.shared.edits import FOLD_ROUNDS, Editor
from qhyvit.methods.shared.hessian import Statistics, gather
from qhyvit.methods.shared.linear_attention import attentions
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.qhyvit_options import QhyvitOptions
from qhyvit.methods.shared.range_search import RangeSearch, rounded
from qhyvit.methods.shared.ranges import finish, spread
from qhyvit.methods.shared.state import State
from qhyvit.methods.shared.taken_back import IMAGES, taken_back
from qhyvit.methods.shared.weight_rounding import search_weights
from qhyvit.plan import TensorQuant


@dataclass(frozen=True)
class Round:
    """Round ``number``, from 0 on; a phase's ``run``."""

    number: int
    options: QhyvitOptions

    def __call__(self, problem: Problem, state: State) -> State:
        """Better ranges and weights for the graph, or an edited graph with ranges to begin with."""
        whole, unseen = problem.on(state.graph), problem.unseen(self.options.search_images, IMAGES)
        problem = whole.searched(self.options.search_images)
        statistics = self._statistics(problem, state)
        search = RangeSearch(
            problem.bits, self.options.ends == "joint", self.options.scheme, wide=problem.lowered.thorough,
            divisors=[t for attention in attentions(problem.graph) for t in attention.quotient],
        )  # fmt: skip
        chosen, total = search.all(list(state.chosen), statistics, state.chosen)
        problem.log(f"round {self.number + 1}: distance before {statistics.distance:.4f}, objective {total:.4g}")
        far = state.far or (self.number == FOLD_ROUNDS[0] and statistics.distance > problem.lowered.far)
        edits = self._editor.wanted(problem, statistics, chosen, total, far=far)
        graph, notes, own = problem.graph, state.notes, spread(problem.graph, chosen)
        if edits is not None:
            graph, chosen, made = self._editor.apply(whole, edits, chosen, total)
            notes = (*notes, *made)
        energies = {} if edits and edits.folds else {t: e.double().numpy() for t, e in statistics.energy.items()}
        weights = search_weights(graph, energies, problem.bits)
        tried = () if edits is not None else (*state.tried, state.quants)
        quants: Mapping[str, TensorQuant] = {**spread(graph, chosen), **weights}
        same = {name: quant for name, quant in state.quants.items() if quants.get(name) == own.get(name)}
        quants = taken_back(unseen.on(graph), same, quants)
        return replace(state, graph=graph, quants=quants, notes=notes, tried=tried, far=far)

    @property
    def _editor(self) -> Editor:
        return Editor(self.number, self.options)

    def _statistics(self, problem: Problem, state: State) -> Statistics:
        graph, editor = problem.graph, self._editor
        by_channel = {t for _, place in editor.places(graph) for t in place.divided}
        blocks = bridge_blocks(graph) if self.options.bridge else []
        label = f"round {self.number + 1} of {self.options.rounds}"
        wanted = [*rounded(graph, state.chosen), *editor.outside_int8(problem)]
        return gather(problem, finish(graph, state.quants), wanted, by_channel, label, blocks)
