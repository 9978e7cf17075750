"""ptq4vit: Hessian-guided scales and twin uniform codes (ECCV 2022, arXiv 2111.12293).

Weights, then activations, 100 multiples in [0, 1.2] of min-max, symmetric, by g^2 at the layer's output; softmax and
SiLU outputs (GELU in the paper) on two scales; the mean error of linear layers goes into their biases. TFLite has no
twin codes: with ``twin`` the result runs in simulation only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qhyvit.methods.shared.channels import values_of
from qhyvit.methods.shared.hessian import mean_distance
from qhyvit.methods.shared.layers import LayerSearch, hessian, sample
from qhyvit.methods.shared.method import Method
from qhyvit.methods.shared.patterns import silu_outputs, softmax_outputs
from qhyvit.methods.shared.problem import Options, Problem, Solution
from qhyvit.methods.shared.ranges import ends, finish, minmax_weights, multiples_of, spread
from qhyvit.methods.shared.reconstruct import ClosedForm, reconstruct
from qhyvit.methods.shared.rest import OBSERVERS, assembled, best, observed
from qhyvit.options import setting
from qhyvit.plan import Choice, Codes, Scheme, TensorQuant
from qhyvit.sim.fakequant import fake_quantize

MULTIPLES = np.linspace(0.01, 1.2, 100)
SILU_LOWEST = 0.2785
SOFTMAX_SPLIT = range(1, 12)  # powers of two at which the softmax's upper scale begins


@dataclass(frozen=True)
class Ptq4vitOptions(Options):
    """Options of ``ptq4vit``."""

    fast_softmax: bool = setting(False, "large softmaxes of int8 ops; the paper has codes for a softmax's outputs")
    fast_gelu: bool = setting(False, "GELUs as SiLU; the paper keeps them")
    rounds: int = setting(2, "of weights, then activations", low=1, high=100)
    twin: bool = setting(True, "two scales a tensor behind softmax and GELU, which TFLite cannot express")


def _twin_silu(high: float, bits: int) -> list[TensorQuant]:
    """Negative codes on a fixed scale, positive ones on each candidate."""
    half = 2 ** (bits - 1)
    choice = Choice(scheme=Scheme.SYMMETRIC, observer="twin")
    below = TensorQuant((SILU_LOWEST / half,), (0,), bits=bits, codes=Codes.TWIN, choice=choice)
    return [replace(below, second=m * high / (half - 1)) for m in MULTIPLES]


def _twin_softmax(bits: int) -> Sequence[TensorQuant]:
    """[0, 2^-m) finely, [0, 1] coarsely, for each m."""
    half = 2 ** (bits - 1) - 1
    choice = Choice(scheme=Scheme.ASYMMETRIC, observer="twin")
    return [
        TensorQuant((2.0**-m / half,), (0,), bits=bits, codes=Codes.TWIN, second=1.0 / half, choice=choice)
        for m in SOFTMAX_SPLIT
    ]  # fmt: skip


def _softmax_codes(problem: Problem) -> dict[int, TensorQuant]:
    """For each softmax the split with the least squared error."""
    found = {}
    for t, x in values_of(problem, softmax_outputs(problem.graph)).items():
        tries = _twin_softmax(problem.bits)
        found[t] = min(tries, key=lambda q, x=x: float(((fake_quantize(x, q) - x) ** 2).sum()))  # type: ignore[misc]
    return found


def find(problem: Problem, options: Ptq4vitOptions) -> Solution:
    """Alternate ``rounds`` times; then choose the observer of the rest, and correct biases."""
    graph, bits = problem.graph, problem.bits
    rests = observed(problem, *OBSERVERS)
    start = rests["minmax"]
    quants = finish(graph, {**spread(graph, start), **minmax_weights(graph, bits)})
    tried = multiples_of(start, MULTIPLES, bits, symmetric=True)
    if options.twin:
        for t in silu_outputs(graph):
            if t in tried:
                tried[t] = _twin_silu(ends(quants[graph.tensors[t].name])[1], bits)
    search = LayerSearch(problem, sample(problem, quants), hessian, tried, MULTIPLES[20:])
    search.run(options.rounds)
    own = dict(search.chosen)
    if options.twin:
        own |= _softmax_codes(problem)
    tries = [(name, assembled(problem, rest, own, search.weights)) for name, rest in rests.items()]
    found = best(problem, tries)
    return corrected(problem, found)


def corrected(problem: Problem, quants: Mapping[str, TensorQuant]) -> Solution:
    """With bias correction where that lowers the KL on the calibration images."""
    graph = problem.graph
    plain = Solution(graph, quants)
    constants, found = reconstruct(problem, quants, ClosedForm(ridge=0.0, rounding=False, scales=False))
    moved = Solution(graph, found, constants=constants)
    scores = [mean_distance(problem.on(s.shipped), s.tensors) for s in (plain, moved)]
    problem.log(f"KL {scores[0]:.4f}, with bias correction {scores[1]:.4f}")
    return moved if scores[1] < scores[0] else plain


METHOD = Method("ptq4vit", "Hessian of layer outputs, twin uniform codes", find, Ptq4vitOptions)
