"""qhyvit: scale, granularity and scheme of every tensor by the Hessian-guided hybrid objective, then its extras.

Rounds of: gradients of KL(float || quantized) with everything quantized, then for every group of tensors that
share a scale the range and scheme with the least weighted squared error. The weight of an element is its squared
gradient, or, inside a bridge block, what its error does to the block's output (Q-HyViT, equation of the hybrid
reconstruction). After the first round the same objective decides which tensors get a scale a channel, through
folds. At the end weights and biases are solved in closed form, in execution order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from qhyvit.methods.shared.hessian import mean_distance, position_weights
from qhyvit.methods.shared.int4 import Int4
from qhyvit.methods.shared.int4_layers import check_four_bits
from qhyvit.methods.shared.learning import learn
from qhyvit.methods.shared.method import Method
from qhyvit.methods.shared.output_ranges import output_quants
from qhyvit.methods.shared.problem import Problem, Solution
from qhyvit.methods.shared.qhyvit_options import QhyvitOptions
from qhyvit.methods.shared.range_search import first_ranges
from qhyvit.methods.shared.ranges import finish, minmax_weights, spread
from qhyvit.methods.shared.reconstruct import ClosedForm, reconstruct
from qhyvit.methods.shared.round import Round
from qhyvit.methods.shared.state import SearchPhase, State, behind
from qhyvit.ops.shared.layer import layers
from qhyvit.plan import TensorQuant, quants_from_json, quants_to_json

THOROUGH = 2  # times as many passes of learned scales where every output counts
JUDGES = 128  # images, at most, that say whether a phase made the network better: by default all 96 that are unseen


@dataclass(frozen=True)
class _Ends:
    """The phases behind the rounds."""

    options: QhyvitOptions

    @property
    def wanted(self) -> ClosedForm:
        """What is solved in closed form."""
        return ClosedForm(self.options.ridge, self.options.rounding, self.options.bias)

    def best_round(self, problem: Problem, state: State) -> State:
        """Ranges and weights as the rounds left them, or from before one of them if the distance was smaller there.

        Every group chooses as if the others stayed; where many move at once the network can come out worse. Outputs
        get ranges of their own at last.
        """
        whole, graph = problem.on(state.graph), state.graph
        problem, quants = whole.searched(self.options.search_images), state.quants
        if state.tried:
            seen = [(mean_distance(problem, finish(graph, q)), q) for q in (*state.tried, quants)]
            problem.log("distance of the rounds since the last fold: " + ", ".join(f"{d:.4f}" for d, _ in seen))
            quants = min(seen, key=lambda each: each[0])[1]
        if self.options.ends != "joint":  # the paper's own search knows no outputs
            quants = {**quants, **spread(graph, output_quants(whole, state.chosen, self.options.scheme))}
        quants = finish(graph, quants)
        found = position_weights(problem, quants, [layer.out for layer in layers(graph)])
        positions = {graph.tensors[t].name: x.numpy() for t, x in found.items()}
        return replace(state, quants=quants, tried=(), positions=positions)

    def closed_form(self, problem: Problem, state: State) -> State:
        """Weights and biases, as far as the options want them; or all as before."""
        solved = self._solved(problem, state, state.quants, "op")
        return self._best(problem, {"": state, "in closed form ": solved})

    def learned(self, problem: Problem, state: State) -> State:
        """Ranges moved with the weights as they are, or the weights solved once more for those; or all as before."""
        moved = replace(state, quants=self._scales(problem.on(state.graph), state.solution), judged=None)
        solved = self._solved(problem, state, moved.quants, "again")
        return self._best(problem, {"": state, "with learned scales ": moved, "and in closed form ": solved})

    def _best(self, problem: Problem, states: Mapping[str, State]) -> State:
        """The one with the smallest distance on images that the closed form has not seen, where there are such.

        The closed form fits those that it sees two or three times as well as others. What learned scales gain is small,
        and takes many images to see; what the closed form gains, as many as the search has seen.
        """
        most = JUDGES if self.options.learn else self.options.search_images
        judges = problem.unseen(self.options.search_images, most)
        seen = {
            said: mean_distance(judges.on(s.solution.shipped), s.quants) if s.judged is None else s.judged
            for said, s in states.items()
        }
        problem.log("distance " + ", ".join(f"{said}{d:.4f}" for said, d in seen.items()))
        best = min(seen, key=seen.__getitem__)
        return replace(states[best], judged=seen[best])

    def _solved(self, problem: Problem, state: State, quants: Mapping[str, TensorQuant], pieces: str) -> State:
        wanted = self.wanted
        if not (wanted.ridge or wanted.rounding or wanted.bias):
            return replace(state, quants=quants, judged=None)
        problem, graph = problem.searched(self.options.search_images).on(state.graph), state.graph
        positions = {graph.by_name[name].id: torch.from_numpy(x) for name, x in state.positions.items()}
        constants, found = reconstruct(problem, quants, wanted, pieces, positions)
        return replace(state, quants=found, constants=constants, judged=None)

    def _scales(self, problem: Problem, solution: Solution) -> dict[str, TensorQuant]:
        """Learned scales, after as many passes over the images as the option says."""
        kept = problem.store.get("learn")
        if kept is not None:
            return quants_from_json(kept.facts)
        passes = self.options.learn * (THOROUGH if problem.lowered.thorough else 1)
        steps = passes * -(-len(problem.images) // problem.together)
        found = learn(problem, solution.shipped, solution.tensors, steps)
        problem.store.put("learn", quants_to_json(found))
        return found


def find(problem: Problem, options: QhyvitOptions) -> Solution:
    """Min-max everywhere, rounds of ranges, folds by the objective, weights and biases in closed form.

    Scales are learned where there are images that the search does not see: those can tell what learning has gained.
    """
    options = options.effective
    if problem.int4:
        check_four_bits(problem)
    ends = _Ends(options)
    phases = [SearchPhase(f"round{i + 1}", Round(i, options)) for i in range(options.rounds)]
    phases += [SearchPhase("rounds", ends.best_round), SearchPhase("closed form", ends.closed_form)]
    if options.learn and problem.leaves_some(options.search_images):
        phases.append(SearchPhase("learned", ends.learned))
    elif options.learn:
        count = len(problem.images)
        problem.log(f"scales are not learned: the search sees all {count} images, and none is left to judge them")
    if problem.int4:
        phases.append(SearchPhase("four bits", Int4(ends.wanted, options.search_images)))
    return behind(problem, _first(problem), phases).solution


def _first(problem: Problem) -> State:
    """Min-max ranges, as Algorithm 1 begins."""
    graph = problem.graph
    return State(graph, {**spread(graph, first_ranges(problem)), **minmax_weights(graph, problem.bits)})


METHOD = Method(
    "qhyvit", "Hessian-guided hybrid search of scale, granularity and scheme", find, QhyvitOptions, has_int4=True
)
