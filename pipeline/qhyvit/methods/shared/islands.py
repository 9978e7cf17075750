"""What islands of float or int16 are worth: the objective's part that they save, in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qhyvit.graph.ir import Graph
from qhyvit.latency.profile import LatencyProfile
from qhyvit.lowering.placement import LONGEST, Worth, fastest_ms
from qhyvit.methods.shared.hessian import Statistics
from qhyvit.methods.shared.int16_outputs import prescribed_loss
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Fixed
from qhyvit.plan import TensorQuant

# What more time must gain of the objective, as a share, over its own share of the whole file's time. Dearer than folds:
# those show in top-1, islands for accuracy's sake did not (docs/decisions/2026-11-29-price-of-time.md)
GAIN_PER_TIME = 3.0
# Where the outputs are far from float's behind the first ranges (``Measure.far``), accuracy is worth more than time.
# Only there the profile integer has islands: int16 kernels are the runtime's plain ones, and old runtimes lack them
GAIN_PER_TIME_FAR = 0.05
LEAST_OBJECTIVE, LEAST_MS = 1e-30, 1e-6  # no division by zero where nothing is lost, or no kernel known


def candidates(graph: Graph) -> set[int]:
    """Tensors whose int8 kernels prescribe their grid."""
    nodes = [n for n in graph.nodes if isinstance(spec(n.op).out, Fixed) and n.is_int8]
    return {n.outputs[0] for n in nodes}


def gain_per_ms(graph: Graph, latency: LatencyProfile, *, far: bool = False) -> float:
    """The share of the objective that a millisecond must gain: the same on a slow board, and in a small network."""
    share = GAIN_PER_TIME_FAR if far else GAIN_PER_TIME
    return share / max(fastest_ms(graph, latency), LEAST_MS)


def worth(graph: Graph, statistics: Statistics, quants: Mapping[str, TensorQuant], per_ms: float) -> Worth:
    """What the objective loses at each tensor, in milliseconds; of those in islands nothing is known: they stay there.

    Args:
        quants: grids of the tensors, by name; ``per_ms``: the part of the objective that buys a millisecond.
    """
    per_ms = max(per_ms, LEAST_OBJECTIVE)
    prescribed_there, inside = candidates(graph), graph.islands
    free, unrounded = dict.fromkeys(inside, LONGEST), dict.fromkeys(inside, LONGEST)
    for t in statistics.peak:
        quant = quants.get(graph.tensors[t].name)
        loss = prescribed_loss(graph, t, statistics) if t in prescribed_there else None
        if loss is not None:
            prescribed, own = loss
            free[t], unrounded[t] = max(prescribed - own.error, 0.0) / per_ms, own.error / per_ms
        elif quant is not None and quant.axis is None:
            grid = np.array(quant.scale), np.array(quant.zero_point)
            errors = [row.error(*grid, *quant.limits)[0] for row in statistics.histograms[t].channels()]
            unrounded[t] = float(sum(errors)) / per_ms
    return Worth(free, unrounded)
