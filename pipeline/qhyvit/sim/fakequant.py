"""Quantization inside the executor: straight-through to search with gradients, exact to verify."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.plan import Codes, Scheme, TensorQuant

TIE_DECIMALS = 9  # a tie stays a tie whatever the last bit of the division


def _straight_through(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The values of ``y`` with the gradient of ``x``."""
    return x + (y - x).detach()


def _log_codes(x: torch.Tensor, quant: TensorQuant) -> torch.Tensor:
    """scale * base^-code, code 0 .. 2^bits - 1, for values >= 0 (FQ-ViT, RepQ-ViT)."""
    step = 1.0 if quant.codes is Codes.LOG2 else 2.0
    top = 2**quant.bits - 1
    codes = torch.round(-step * torch.log2((x / quant.scale[0]).clamp_min(1e-30)))
    y = quant.scale[0] * torch.exp2(-codes.clamp(0, top) / step)
    return torch.where(codes > top, torch.zeros_like(y), y)


def _twin_codes(x: torch.Tensor, quant: TensorQuant) -> torch.Tensor:
    """Half of the codes on one scale, half on ``second`` (PTQ4ViT): signed tensors by sign, others by size."""
    assert quant.second is not None
    half = 2 ** (quant.bits - 1) - 1
    first = torch.round(x / quant.scale[0])
    second = torch.round(x / quant.second).clamp(0, half) * quant.second
    if quant.choice.scheme is Scheme.SYMMETRIC:  # the first scale serves values < 0
        return torch.where(x < 0, first.clamp(-half - 1, 0) * quant.scale[0], second)
    return torch.where(first <= half, first.clamp(0, half) * quant.scale[0], second)


def fake_quantize(x: torch.Tensor, quant: TensorQuant) -> torch.Tensor:
    """Round to the grid and back; gradient 1 inside the range, 0 outside (straight-through).

    ``quant.axis`` counts in the file's shape; ``x`` has the images' dimension before it.
    """
    if quant.codes is Codes.TWIN:
        return _straight_through(x, _twin_codes(x, quant))
    if quant.codes is not Codes.UNIFORM:
        return _straight_through(x, _log_codes(x, quant))
    low, high = quant.limits
    if quant.axis is None:
        return torch.fake_quantize_per_tensor_affine(x, quant.scale[0], quant.zero_point[0], low, high)
    scale = torch.tensor(quant.scale, dtype=torch.float32, device=x.device)
    zero = torch.tensor(quant.zero_point, dtype=torch.int32, device=x.device)
    return torch.fake_quantize_per_channel_affine(x, scale, zero, quant.axis + 1, low, high)


class FakeQuant:
    """Hook: every activation that ``quants`` names is rounded to its grid.

    Tensors that only copy codes (RESHAPE, TRANSPOSE, ...) may be left out: rounding is idempotent.
    """

    def __init__(self, quants: Mapping[str, TensorQuant]) -> None:
        self.quants = dict(quants)

    def __call__(self, tensor: Tensor, x: torch.Tensor, node: Node | None) -> torch.Tensor:
        """See :data:`qhyvit.sim.run.Hook`."""
        quant = self.quants.get(tensor.name)
        return x if quant is None else fake_quantize(x, quant)


def _half_away(v: np.ndarray) -> np.ndarray:
    return np.sign(v) * np.floor(np.abs(v) + 0.5)


def _round(steps: np.ndarray, zero_point: int, rounding: str) -> np.ndarray:
    """Steps to codes, as OpSpec.rounding says where the zero point comes in."""
    steps = np.round(steps, TIE_DECIMALS)
    if rounding == "half_away":
        return _half_away(steps + zero_point)
    if rounding == "half_up":
        return np.floor(steps + 0.5) + zero_point
    return (np.trunc(steps) if rounding == "truncate" else np.rint(steps)) + zero_point


def exact_codes(y: torch.Tensor, quant: TensorQuant, rounding: str = "half_even") -> np.ndarray:
    """Codes of float64 values as the kernels round them (int64, shape of ``y``), zero point included."""
    low, high = quant.limits
    steps = y.detach().cpu().numpy().astype(np.float64) / quant.scale[0]
    return np.clip(_round(steps, quant.zero_point[0], rounding), low, high).astype(np.int64)


class ExactQuant:
    """The file's own arithmetic on a float64 executor; also a hook that rounds every activation.

    The graph's constants must lie on their grids and its biases on theirs (:func:`quantized_biases`).
    """

    def __init__(self, graph: Graph, quants: Mapping[str, TensorQuant]) -> None:
        self.graph, self.quants = graph, quants

    def _quant(self, tensor: int) -> TensorQuant:
        return self.quants[self.graph.tensors[tensor].name]

    def codes(self, tensor: Tensor, y: torch.Tensor, node: Node | None) -> np.ndarray:
        """Codes that the kernel of ``node`` makes of its exact real result ``y``, int64."""
        quant = self.quants[tensor.name]
        if node is None or self.graph.is_float(node):  # QUANTIZE of a float value
            return exact_codes(y, quant)
        own = spec(node.op).kernel_steps
        if own is not None:
            steps = own(y.detach().cpu().numpy(), self._quant(node.inputs[0]).scale[0], quant.scale[0])
            return np.clip(steps + quant.zero_point[0], *quant.limits).astype(np.int64)
        if not spec(node.op).accumulates:
            return exact_codes(y, quant, spec(node.op).rounding)
        low, high = quant.limits
        a, b = (np.asarray(self._quant(t).scale, np.float64) for t in node.inputs[:2])
        sums = np.rint(y.detach().cpu().numpy() / (a * b)).astype(np.float32)  # the kernel's integer accumulator
        factor = a.astype(np.float32) * b.astype(np.float32) / np.float32(quant.scale[0])
        return np.clip(np.rint(sums * factor) + quant.zero_point[0], low, high).astype(np.int64)

    def __call__(self, tensor: Tensor, x: torch.Tensor, node: Node | None) -> torch.Tensor:
        """See :data:`qhyvit.sim.run.Hook`."""
        quant = self.quants.get(tensor.name)
        if quant is None:  # inside a float island
            return x
        return torch.from_numpy((self.codes(tensor, x, node) - quant.zero_point[0]) * quant.scale[0]).to(x.device)


def quantized_biases(graph: Graph, quants: Mapping[str, TensorQuant]) -> Graph:
    """The graph with every bias rounded to int32 * s_in * s_w, as the file will hold it."""
    values = {}
    for node in graph.nodes:
        op = spec(node.op)
        if op.bias_input < 0 or len(node.inputs) <= op.bias_input or node.inputs[op.bias_input] < 0:
            continue
        s_in = quants[graph.tensors[node.inputs[0]].name].scale[0]
        s_w = np.asarray(quants[graph.tensors[node.inputs[op.weight_input]].name].scale)
        bias = graph.constant(node.inputs[op.bias_input]).astype(np.float64)
        step = s_in * s_w
        values[node.inputs[op.bias_input]] = np.clip(np.rint(bias / step), -(2**31), 2**31 - 1) * step
    return edit.with_constants(graph, values)
