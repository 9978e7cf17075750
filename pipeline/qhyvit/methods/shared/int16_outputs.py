"""int16 where the objective says that it pays: kernels that prescribe a coarse int8 step, within a budget of time.

A softmax over 256 tokens has a mean of one int8 step (1/256). Its int16 output has 1/65536, and the int8 codes made
of its output have whatever scale the objective likes best.
"""

from __future__ import annotations

import numpy as np

from qhyvit import affine
from qhyvit.graph.ir import Graph
from qhyvit.latency.profile import LatencyProfile
from qhyvit.lowering.profiles import wide_cost_ms
from qhyvit.methods.shared.hessian import Statistics
from qhyvit.observers.shared.search import Found, search
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Fixed

LEAST_GAIN = 0.001  # of the whole objective
LEAST_MS = 1e-9  # a kernel that costs nothing comes first


def candidates(graph: Graph, latency: LatencyProfile) -> list[int]:
    """Tensors that an int16 kernel could write."""
    return [t.id for t in graph.activations() if wide_cost_ms(graph, t.id, latency) is not None]


def prescribed_loss(graph: Graph, t: int, statistics: Statistics) -> tuple[float, Found] | None:
    """What the grid that an int8 kernel prescribes costs a tensor, and its best own range; None: it is free."""
    node = graph.producer(t)
    contract = spec(node.op).out if node is not None else None
    if t not in statistics.peak or not isinstance(contract, Fixed):
        return None
    (row,) = statistics.histograms[t].channels()
    grid = affine.grid()
    error = row.error(np.array([contract.scale]), np.array([contract.zero_point]), grid.qmin, grid.qmax)
    return float(error[0]), search(row, grid, pin_low=0.0 if contract.zero_point == grid.qmin else None)


def choose(
    graph: Graph, statistics: Statistics, total: float, budget_ms: float, latency: LatencyProfile
) -> dict[int, tuple[float, float]]:
    """The tensors to compute in int16, most gain for its time first, and the best int8 range of each behind it.

    Args:
        total: the objective of the whole network; ``budget_ms``: milliseconds on one core, of all together.
    """
    gains = []
    for t in candidates(graph, latency):
        cost, loss = wide_cost_ms(graph, t, latency), prescribed_loss(graph, t, statistics)
        if cost is None or loss is None:
            continue
        prescribed, own = loss
        gains.append((prescribed - own.error, cost, t, (own.low, own.high)))
    found, spent = {}, 0.0
    for gain, cost, t, ends in sorted(gains, key=lambda g: -g[0] / max(g[1], LEAST_MS)):
        if gain > LEAST_GAIN * total and spent + cost <= budget_ms:
            found[t] = ends
            spent += cost
    return found
