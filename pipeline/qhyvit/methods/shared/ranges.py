"""From ranges of groups and weights to the TensorQuant of every tensor, within what TFLite can express."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from qhyvit import affine
from qhyvit.graph.ir import Graph, Node
from qhyvit.lowering.contracts import Group, groups, weights
from qhyvit.plan import Choice, Granularity, Scheme, TensorQuant

ON_GRID = 1e-4  # steps that float32 may be off
# XNNPACK takes int8 ADD and SUB only for s_in / s_out in [2^-10, 2^8): a constant far below the other operand
# (the eps of a norm) gets a grid just coarse enough, and so does a sum far below an operand.
FINEST_TERM, COARSEST_TERM = 2.0**-9, 255.0
SUMS = ("ADD", "SUB")
# XNNPACK makes no operator whose accumulator is multiplied by 2^8 or more, and the whole file then fails to load
MOST_GAIN = 2.0**7
# exp of it, and the sum of a few, are far from overflow in float32; exp of its negative is not yet zero
LARGEST_EXPONENT = 80.0


def group_quant(
    group: Group, low: float, high: float, observer: str, score: float | None = None, *,
    symmetric: bool = False, bits: int = 8,
) -> TensorQuant:  # fmt: skip
    """Quantization of a group from its range, with the scheme that its readers or the target force.

    Prescribed scales keep their 8 bits.
    """
    if group.fixed is not None:
        scale, zero = group.fixed
        return TensorQuant((float(np.float32(scale)),), (zero,), choice=Choice(observer="fixed"))
    symmetric = symmetric or group.symmetric or group.centred
    if group.low_at_zero:
        low, high = 0.0, max(high, 0.0)
    grid = grid_for(bits, symmetric=symmetric, right=group.symmetric)
    params = affine.fit(low, high, grid, symmetric=symmetric)
    scheme = Scheme.SYMMETRIC if symmetric else Scheme.ASYMMETRIC
    return TensorQuant(
        (float(params.scale),), (int(params.zero_point),), choice=Choice(Granularity.LAYER, scheme, observer),
        overflow=int(params.overflow), resolution_loss=float(params.resolution_loss), score=score, bits=bits,
        low=grid.qmin,
    )  # fmt: skip


def suits(group: Group, quant: TensorQuant) -> bool:
    """Whether a quantization is what the group's kernels want; islands that moved may want another."""
    scale, zero = quant.scale[0], quant.zero_point[0]
    if group.fixed is not None:
        return (scale, zero) == (float(np.float32(group.fixed[0])), group.fixed[1])
    lowest = quant.limits[0]
    if group.symmetric or group.centred:
        return zero == 0 and lowest == grid_for(quant.bits, symmetric=True, right=group.symmetric).qmin
    return not group.low_at_zero or zero == lowest


def grid_for(bits: int, *, symmetric: bool, right: bool = False) -> affine.Grid:
    """Codes of an activation; ``right``: it is a matrix product's right operand.

    XNNPACK's kernels for arm64 without dot products (Cortex-A53, A72) take the right operand for weights, whose codes
    leave out -128: they add two products in 16 bits, and twice -128 * -128 is one too much.
    """
    return affine.grid(bits, centred=symmetric, narrow=right and bits == 8)


def spread(graph: Graph, chosen: Mapping[Group, TensorQuant]) -> dict[str, TensorQuant]:
    """Give every member of a group its quantization, by tensor name."""
    return {graph.tensors[t].name: quant for group, quant in chosen.items() for t in group.members}


def weight_scales(data: np.ndarray, axis: int, shrink: np.ndarray | float = 1.0, bits: int = 8) -> np.ndarray:
    """Symmetric scale of each output channel: max |w| * shrink / (2^(bits - 1) - 1), floored."""
    other = tuple(i for i in range(data.ndim) if i != axis)
    scale = np.abs(data.astype(np.float64)).max(axis=other) * shrink / affine.grid(bits).qmax
    found: np.ndarray = np.maximum(scale, affine.SCALE_FLOOR).astype(np.float32).astype(np.float64)
    return found


def weight_quant(scales: np.ndarray, axis: int, observer: str, bits: int = 8) -> TensorQuant:
    """Per-channel symmetric quantization of a weight."""
    choice = Choice(Granularity.CHANNEL, Scheme.SYMMETRIC, observer)
    return TensorQuant(tuple(float(s) for s in scales), (0,) * len(scales), axis=axis, bits=bits, choice=choice)


def minmax_weights(graph: Graph, bits: int = 8) -> dict[str, TensorQuant]:
    """Min-max quantization of all weights."""
    return {
        tensor.name: weight_quant(weight_scales(graph.constant(tensor.id), axis, bits=bits), axis, "minmax", bits)
        for _, tensor, axis in weights(graph)
    }


def bias_floor(graph: Graph, quants: Mapping[str, TensorQuant]) -> dict[str, TensorQuant]:
    """Raise weight scales where the bias would not fit int32 (dead channels: all weights near zero)."""
    from qhyvit.ops import spec

    raised = dict(quants)
    for node, weight, _ in weights(graph):
        op = spec(node.op)
        position = op.bias_input
        if len(node.inputs) <= position or node.inputs[position] < 0:
            continue
        source, quant = raised.get(graph.tensors[node.inputs[op.data_input]].name), raised.get(weight.name)
        if source is None or quant is None:  # a rival's grids, a channel or codes of their own, in simulation only
            continue
        bias = np.abs(graph.constant(node.inputs[position]).astype(np.float64)).ravel()
        least = bias / (source.scale[0] * 2.0**30)
        scale = np.maximum(np.asarray(quant.scale), least).astype(np.float32)
        raised[weight.name] = replace(quant, scale=tuple(float(s) for s in scale))
    return raised


def delegable_constants(graph: Graph, quants: Mapping[str, TensorQuant]) -> dict[str, TensorQuant]:
    """Coarsen constants whose scale XNNPACK would refuse beside the other operand of an ADD or SUB."""
    changed = dict(quants)
    for node in graph.nodes:
        if node.op not in SUMS:
            continue
        if not node.is_int8:
            continue
        out = changed[graph.tensors[node.outputs[0]].name].scale[0]
        for t in node.inputs:
            tensor = graph.tensors[t]
            if tensor.is_constant and changed[tensor.name].scale[0] < out * FINEST_TERM:
                scale = float(np.float32(out * FINEST_TERM))
                changed[tensor.name] = replace(changed[tensor.name], scale=(scale,))
    return changed


def loadable_outputs(graph: Graph, quants: Mapping[str, TensorQuant]) -> dict[str, TensorQuant]:
    """Coarsen outputs far finer than what their kernel adds up.

    So is a layer that is zero on all calibration images, and a sum that a ReLU6 cuts off (hard swish of large values):
    XNNPACK refuses it, and the builtin kernel's sums wrap around in int16.
    """
    changed = dict(quants)
    group_of = {t: group for group in groups(graph) for t in group.members}
    for node in graph.nodes:
        out = node.outputs[0]
        if not node.is_int8 or group_of[out].fixed is not None:
            continue
        found, least = changed.get(graph.tensors[out].name), _least_scale(graph, node, changed)
        if found is not None and len(found.scale) == 1 and found.scale[0] < least:
            for name in (graph.tensors[t].name for t in group_of[out].members):
                changed[name] = replace(changed[name], scale=(least,))
    return changed


def _least_scale(graph: Graph, node: Node, quants: Mapping[str, TensorQuant]) -> float:
    """The finest scale that a kernel can give its output; 0 where there is no such limit."""
    from qhyvit.ops import spec

    is_sum, factors = node.op in SUMS, spec(node.op).factors
    positions = range(len(node.inputs)) if is_sum else factors or ()
    reads = [quants.get(graph.tensors[node.inputs[i]].name) for i in positions]
    steps = [max(q.scale) for q in reads if q is not None]
    if not steps or len(steps) < len(reads):
        return 0.0
    return float(np.float32(max(steps) / COARSEST_TERM if is_sum else math.prod(steps) / MOST_GAIN))


def ends(quant: TensorQuant) -> tuple[float, float]:
    """Lowest and highest value of a per-tensor quantization."""
    low, high = quant.limits
    return (low - quant.zero_point[0]) * quant.scale[0], (high - quant.zero_point[0]) * quant.scale[0]


def multiples_of(
    start: Mapping[Group, TensorQuant], multiples: np.ndarray, bits: int, *, symmetric: bool
) -> dict[int, list[TensorQuant]]:
    """For every member of a group that is free: its range times each of ``multiples``."""
    found: dict[int, list[TensorQuant]] = {}
    for group, quant in start.items():
        if group.fixed is None:
            low, high = ends(quant)
            tries = [group_quant(group, m * low, m * high, "search", symmetric=symmetric, bits=bits) for m in multiples]
            found |= dict.fromkeys(group.members, tries)
    return found


def constant_ranges(graph: Graph, group: Group, bits: int = 8) -> tuple[float, float] | None:
    """Range of a group that holds constants only; None if an activation is in it.

    What folds multiply by lies on the grid of weights: a range with the same step and zero point keeps it exact.
    """
    if any(not graph.tensors[t].is_constant for t in group.members):
        return None
    data = np.concatenate([graph.constant(t).ravel() for t in group.members]).astype(np.float64)
    peak, top = float(np.abs(data).max()), affine.grid(bits).qmax
    steps = data * top / max(peak, affine.SCALE_FLOOR)
    if float(np.abs(steps - np.rint(steps)).max()) < ON_GRID:
        return -peak * (top + 1) / top, peak
    return float(data.min()), float(data.max())


def finite_exponentials(graph: Graph, quants: Mapping[str, TensorQuant]) -> dict[str, TensorQuant]:
    """Finer scales of what EXP reads where no code may stand for a number whose exponential overflows."""
    changed = dict(quants)
    group_of = {t: group for group in groups(graph) for t in group.members}
    for read in (node.inputs[0] for node in graph.nodes if node.op == "EXP" and node.inputs[0] in group_of):
        names = [graph.tensors[t].name for t in group_of[read].members]
        found = changed.get(names[0])
        if found is not None and (most := max(map(abs, ends(found)))) > LARGEST_EXPONENT:
            scale = float(np.float32(found.scale[0] * LARGEST_EXPONENT / most))
            changed |= {name: replace(changed[name], scale=(scale,)) for name in names}
    return changed


def finish(graph: Graph, quants: Mapping[str, TensorQuant]) -> dict[str, TensorQuant]:
    """The last adjustments, in the order in which they depend on each other."""
    found = loadable_outputs(graph, finite_exponentials(graph, quants))
    return bias_floor(graph, delegable_constants(graph, found))


__all__ = ["Group", "constant_ranges", "finish", "group_quant", "groups", "minmax_weights", "spread", "weight_quant"]
