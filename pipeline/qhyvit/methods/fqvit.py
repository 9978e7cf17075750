"""fqvit: fully quantized transformers by power-of-two factors and log2 softmax (IJCAI 2022, arXiv 2111.13824).

Weights by min-max a channel, activations by the best of its observers; norm inputs on one scale times 1, 2, 4 or 8 a
channel (PTF); softmax outputs as halves (log2). PTF and log2 are beyond TFLite: ``expressible`` leaves them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from qhyvit.methods.shared.channels import power_of_two_factors
from qhyvit.methods.shared.method import Method
from qhyvit.methods.shared.patterns import norms, softmax_outputs
from qhyvit.methods.shared.problem import Options, Problem, Solution
from qhyvit.methods.shared.ranges import minmax_weights
from qhyvit.methods.shared.rest import OBSERVERS, assembled, best, observed
from qhyvit.options import setting
from qhyvit.plan import Choice, Codes, TensorQuant


@dataclass(frozen=True)
class FqvitOptions(Options):
    """Options of ``fqvit``."""

    fast_softmax: bool = setting(False, "large softmaxes of int8 ops; the paper has codes for a softmax's outputs")
    fast_gelu: bool = setting(False, "GELUs as SiLU; the paper keeps them")
    expressible: bool = setting(False, "only what TFLite can express")
    softmax_bits: int = setting(4, "of a softmax's log2 codes", low=2, high=8, unit="bits")


def log2_softmax(graph: Any, bits: int, codes: Codes = Codes.LOG2) -> dict[int, TensorQuant]:
    """Every softmax output as scale * base^-code."""
    quant = TensorQuant((1.0,), (0,), bits=bits, codes=codes, choice=Choice(observer=codes.value))
    return dict.fromkeys(softmax_outputs(graph), quant)


def find(problem: Problem, options: FqvitOptions) -> Solution:
    """The observer, and softmax codes uniform or log2, with the least KL on the calibration images."""
    graph, bits = problem.graph, problem.bits
    weights = minmax_weights(graph, bits)
    owns: list[tuple[str, dict[int, TensorQuant]]] = [("as TFLite has it", {})]
    if not options.expressible:
        factors = power_of_two_factors(problem, list(dict.fromkeys(n.source for n in norms(graph))))
        owns = [("PTF", factors), ("PTF, log2", {**factors, **log2_softmax(graph, options.softmax_bits)})]
    with torch.no_grad():
        tries = [
            (f"{what}, {name}", assembled(problem, rest, own, weights))
            for name, rest in observed(problem, *OBSERVERS).items()
            for what, own in owns
        ]
        return Solution(graph, best(problem, tries))


METHOD = Method("fqvit", "power-of-two factors at norms, log2 softmax", find, FqvitOptions)
