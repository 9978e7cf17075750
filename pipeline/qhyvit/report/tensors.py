"""Facts of single tensors: what rounding does to their values."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from qhyvit.graph.ir import Graph
from qhyvit.plan import TensorQuant
from qhyvit.report.cost import Costs, Rounded
from qhyvit.report.facts import TensorFacts, ValueCounts, rounded
from qhyvit.sim.fakequant import rounds

BINS = 64


def grid_ends(quant: TensorQuant, channel: int = 0) -> tuple[float, float]:
    """The lowest and highest value that has a code."""
    low, high = quant.limits
    zero, scale = quant.zero_point[channel], quant.scale[channel]
    return (low - zero) * scale, (high - zero) * scale


def sqnr_db(x: torch.Tensor, y: torch.Tensor) -> float | None:
    """10 log10(sum x^2 / sum (x - y)^2); None where x and y are equal or x is zero."""
    signal = float(x.double().square().sum())
    noise = float((x.double() - y.double()).square().sum())
    return None if noise == 0 or signal == 0 else 10 * math.log10(signal / noise)


def histogram(x: torch.Tensor, grid: tuple[float, float]) -> ValueCounts:
    """Values of ``x`` in :data:`BINS` bins that cover them and the grid."""
    low, high = min(float(x.min()), grid[0]), max(float(x.max()), grid[1])
    counts = torch.histc(x.float(), BINS, low, high)
    ends = rounded(grid[0]), rounded(grid[1])
    return ValueCounts(rounded(low), rounded(high), tuple(int(c) for c in counts.tolist()), ends)


def _spread_out(item: Rounded, x: torch.Tensor) -> tuple[torch.Tensor, tuple[float, float]]:
    """Values to show and the grid's ends; with a scale a channel: both in steps of the channel's own scale."""
    quant = item.quant
    if quant.axis is None:
        return x, grid_ends(quant)
    axis = quant.axis + (item.kind == "activation")
    shape = [1] * x.dim()
    shape[axis] = -1
    low, high = quant.limits
    low += item.kind == "weight"  # weights leave out the lowest code
    zero = quant.zero_point[0] if len(set(quant.zero_point)) == 1 else 0
    steps = x / torch.tensor(quant.scale, dtype=torch.float32).reshape(shape)
    return steps, (float(low - zero), float(high - zero))


def _copies(graph: Graph, tensor: int) -> list[str]:
    """Names of all that only moves the codes of ``tensor``."""
    found: list[str] = []
    for user in graph.users(tensor):
        if not rounds(user):
            for t in user.outputs:
                found += [graph.tensors[t].name, *_copies(graph, t)]
    return found


def tensor_facts(
    costs: Costs, item: Rounded, block: str, file_sqnr: Mapping[str, float], bridge: Mapping[str, str]
) -> TensorFacts:
    """Everything about one tensor."""
    x, quant, name = costs.values(item), item.quant, item.tensor.name
    shown, grid = _spread_out(item, x)
    half = (grid[1] - grid[0]) / max(quant.limits[1] - quant.limits[0], 1) / 2
    clipped = float(((shown < grid[0] - half) | (shown > grid[1] + half)).double().mean())
    own, in_file = sqnr_db(x, costs.rounded(item)), file_sqnr.get(name)
    copies = dict.fromkeys(_copies(costs.graph, item.tensor.id)) if item.kind == "activation" else ()
    return TensorFacts(
        name=name, kind=item.kind, op="input" if item.node is None else item.node.op, block=block,
        shape=item.tensor.shape, copies=tuple(copies),
        scheme=quant.choice.scheme.value, granularity=quant.choice.granularity.value, observer=quant.choice.observer,
        bits=quant.bits, scale=(min(quant.scale), max(quant.scale)), zero_point=quant.zero_point[0],
        overflow=quant.overflow, resolution_loss=rounded(quant.resolution_loss),
        low=rounded(float(shown.min())), high=rounded(float(shown.max())), clipped=rounded(clipped),
        sqnr_db=None if own is None else rounded(own), file_sqnr_db=None if in_file is None else rounded(in_file),
        kl=rounded(max(costs.alone(item), 0.0)), histogram=histogram(shown, grid), bridge=bridge.get(name, ""),
    )  # fmt: skip
