"""The phase that gives weights four bits: which, their codes, and the layers around them solved for these.

It begins where the search with weights of eight bits ends: with its ranges, folds and islands.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from qhyvit.errors import UsageError
from qhyvit.graph import edit
from qhyvit.lowering.lower import quantized_file
from qhyvit.methods.shared.hessian import mean_distance, position_weights
from qhyvit.methods.shared.int4_layers import SHARE, candidates, prices, with_linears, within
from qhyvit.methods.shared.int4_rounding import round_to_int4
from qhyvit.methods.shared.last_edits import lowered
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.ranges import bias_floor, weight_quant
from qhyvit.methods.shared.reconstruct import ClosedForm, Gram, Lockstep
from qhyvit.methods.shared.state import State
from qhyvit.ops.shared.layer import Layer, layers
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.checked import Edit

IMAGES = 128  # at the most: the activations of all are held at once
ALIKE = 4.0  # samples of these that say no more than one would by itself
RIDGE = 0.04  # of the pull that int8 weights have: there is more to make up for


class _Int4Lockstep(Lockstep):
    """Solves layers as before, with codes of four bits for the weights that ``four`` names; ``errors`` of each."""

    def __init__(
        self, problem: Problem, quants: Mapping[str, TensorQuant], options: ClosedForm,
        positions: Mapping[int, torch.Tensor], four: Collection[str], alike: float,
    ) -> None:  # fmt: skip
        super().__init__(problem, quants, options, "", positions)
        self.four, self.alike, self.errors = four, alike, dict[str, torch.Tensor]()

    def _round(self, layer: Layer, w: torch.Tensor, gram: Gram) -> tuple[TensorQuant, torch.Tensor]:
        name = self.graph.tensors[layer.weight].name
        if name not in self.four:
            return super()._round(layer, w, gram)
        found = round_to_int4(w, gram, self.alike)
        self.errors[name] = found.error.reshape(-1)
        quant = weight_quant(found.scale.reshape(-1).numpy(), layer.axis, "reconstruct", 4)
        return quant, found.codes * found.scale

    def _kept(self, index: int, layer: Layer) -> bool:
        return False  # the phase as a whole is kept

    def _keep(self, index: int, layer: Layer) -> None:
        pass


@dataclass(frozen=True)
class Int4:
    """A phase's ``run``.

    Args:
        options: of the closed form with int8 weights.
        images: how many the first solution sees, from which prices are made.
    """

    options: ClosedForm
    images: int

    def __call__(self, problem: Problem, state: State) -> State:
        """The state with weights of four bits, in a file of ``problem.size`` bytes.

        Raises:
            UsageError: none is as small.
        """
        problem = problem.some(IMAGES).on(state.graph)
        rows = [problem.graph.tensors[layer.weight].name for layer in candidates(problem.graph)]
        some = problem.searched(self.images)
        all_four, errors = self._solved(some, state, rows, 1.0)
        chosen = self._chosen(some, state, all_four, errors)
        problem, _ = problem.edited([Edit("linears of int4 weights", lambda graph: with_linears(graph, chosen))])
        final, _ = self._solved(problem, replace(state, graph=problem.graph, constants={}), chosen, ALIKE)
        distance = mean_distance(problem.on(final.solution.shipped), final.quants)
        count = sum(problem.graph.constant(problem.graph.by_name[name].id).size for name in chosen)
        problem.log(f"four bits: {count:,} weights in {len(chosen)} of {len(rows)} layers that can, "
                    f"distance {distance:.4f}")  # fmt: skip
        if problem.size and (found := _file_size(problem, final)) > problem.size:
            asked = f"--size {problem.size / 1e6:g}MB"
            raise UsageError(f"{asked}: the file has {found / 1e6:.3f} MB; ask for a little less")
        return final

    def _chosen(
        self, problem: Problem, state: State, all_four: State, errors: Mapping[str, torch.Tensor]
    ) -> list[str]:
        changed = edit.with_named(problem.graph, all_four.constants)
        rows = prices(problem.on(changed), all_four.quants, errors)
        linears = with_linears(problem.graph, [row.weight for row in rows])
        smallest = _file_size(problem, replace(all_four, graph=linears, constants={}))
        size = problem.size or round(SHARE * _file_size(problem, state))
        return within(rows, smallest, size if problem.size else max(size, smallest))

    def _solved(
        self, problem: Problem, state: State, four: Collection[str], alike: float
    ) -> tuple[State, dict[str, torch.Tensor]]:
        graph = problem.graph
        positions = position_weights(problem, state.quants, [layer.out for layer in layers(graph)])
        options = replace(self.options, ridge=RIDGE * self.options.ridge)
        lockstep = _Int4Lockstep(problem, state.quants, options, positions, four, alike)
        with torch.no_grad():
            lockstep.run()
        changed = edit.with_constants(graph, lockstep.constants)
        constants: dict[str, np.ndarray] = {graph.tensors[t].name: changed.constant(t) for t in lockstep.constants}
        found = replace(state, quants=bias_floor(changed, lockstep.quants), constants=constants)
        return found, lockstep.errors


def _file_size(problem: Problem, state: State) -> int:
    """Bytes of the file."""
    found = lowered(problem, state.solution)
    plan = QuantPlan(found.tensors, "", profile=problem.target.profile, target=problem.target.called, int16=found.int16)
    return len(quantized_file(found.shipped, plan))
