"""easyquant: scales searched in turn for the best cosine similarity of each layer's output (arXiv 2006.16669).

Weights, then activations, each scale among 100 multiples in [0.5, 2] of min-max, symmetric; weights a channel, as
TFLite has them. What the paper does not cover (norms, sums, products) takes the best observer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qhyvit.methods.shared.layers import LayerSearch, cosine, sample
from qhyvit.methods.shared.method import Method
from qhyvit.methods.shared.problem import Options, Problem, Solution
from qhyvit.methods.shared.ranges import finish, minmax_weights, multiples_of, spread
from qhyvit.methods.shared.rest import OBSERVERS, assembled, best, observed
from qhyvit.options import setting

MULTIPLES = np.linspace(0.5, 2.0, 100)
ACTIVATIONS = np.concatenate([np.geomspace(0.05, 0.5, 20, endpoint=False), MULTIPLES[::2]])  # hybrids have outliers


@dataclass(frozen=True)
class EasyquantOptions(Options):
    """Options of ``easyquant``."""

    rounds: int = setting(2, "of weights, then activations", low=1, high=100)
    scheme: str = setting("best", "of activations; best: the one with the less KL",
                          choices=("best", "symmetric", "asymmetric"))  # fmt: skip


def find(problem: Problem, options: EasyquantOptions) -> Solution:
    """Alternate ``rounds`` times; ``scheme`` of the activations: symmetric (the paper) or asymmetric."""
    rests = observed(problem, *OBSERVERS)
    start = rests["minmax"]
    quants = finish(problem.graph, {**spread(problem.graph, start), **minmax_weights(problem.graph, problem.bits)})
    layers = sample(problem, quants)
    tries = []
    for scheme in ("symmetric", "asymmetric") if options.scheme == "best" else (options.scheme,):
        tried = multiples_of(start, ACTIVATIONS, problem.bits, symmetric=scheme == "symmetric")
        search = LayerSearch(problem, layers, cosine, tried, MULTIPLES)
        search.run(options.rounds)
        for name, rest in rests.items():
            tries.append((f"{scheme}, rest {name}", assembled(problem, rest, search.chosen, search.weights)))
    return Solution(problem.graph, best(problem, tries))


METHOD = Method("easyquant", "cosine similarity of layer outputs", find, EasyquantOptions)
