"""int16 where the objective says that it pays: kernels that prescribe a coarse int8 step, within a budget of time.

A softmax over 256 tokens has a mean of one int8 step (1/256). Its int16 output has 1/65536, and the int8 codes made
of its output have whatever scale the objective likes best.
"""

from __future__ import annotations

import numpy as np

from qhyvit import affine
from qhyvit.graph.ir import Graph
from qhyvit.methods._hessian import Statistics
from qhyvit.observers._search import search
from qhyvit.ops import spec
from qhyvit.ops._spec import Fixed
from qhyvit.tflite.islands import wide_cost_ms

LEAST_GAIN = 0.001  # of the whole objective


def candidates(graph: Graph) -> list[int]:
    """Tensors that an int16 kernel could write."""
    return [t.id for t in graph.activations() if wide_cost_ms(graph, t.id) is not None]


def choose(graph: Graph, statistics: Statistics, total: float, budget_ms: float) -> dict[int, tuple[float, float]]:
    """The tensors to compute in int16, most gain for its time first, and the best int8 range of each behind it.

    Args:
        total: the objective of the whole network; ``budget_ms``: milliseconds on one core, of all together.
    """
    gains = []
    for t in candidates(graph):
        node, cost = graph.producer(t), wide_cost_ms(graph, t)
        contract = spec(node.op).out if node is not None else None
        if cost is None or t not in statistics.peak or not isinstance(contract, Fixed):
            continue
        (row,) = statistics.histograms[t].channels()
        grid = affine.grid()
        prescribed = row.error(np.array([contract.scale]), np.array([contract.zero_point]), grid.qmin, grid.qmax)
        own = search(row, grid, pin_low=0.0)
        gains.append((float(prescribed[0]) - own.error, cost, t, (own.low, own.high)))
    found, spent = {}, 0.0
    for gain, cost, t, ends in sorted(gains, key=lambda g: -g[0] / g[1]):
        if gain > LEAST_GAIN * total and spent + cost <= budget_ms:
            found[t] = ends
            spent += cost
    return found
