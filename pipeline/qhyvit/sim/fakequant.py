"""Quantization inside the executor: straight-through to search with gradients, exact to verify."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.ops._elementwise import align
from qhyvit.ops._fixed_point import requantized
from qhyvit.ops._spec import Tied, activate
from qhyvit.plan import Codes, Scheme, TensorQuant
from qhyvit.sim.int16 import Int16Codes

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


class _Uniform(torch.autograd.Function):
    """Round [*] to codes of one scale and back, in vectorised passes: ten times torch's own fake quantization."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: float, zero_point: int, low: int, high: int
    ) -> torch.Tensor:
        """Bounds are whole codes, so clamping before rounding is the same as after."""
        ctx.save_for_backward(x)
        ctx.ends = (low - zero_point - 0.5) * scale, (high - zero_point + 0.5) * scale
        return (x * (1.0 / scale)).clamp_(low - zero_point, high - zero_point).round_().mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        """1 inside the range, 0 outside."""
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grad, x, *ctx.ends), None, None, None, None


class LearnedUniform(torch.autograd.Function):
    """The same with gradients of scale and zero point too (LSQ, arXiv 1902.08153, with offset: LSQ+).

    With y the result: inside the range dy/dscale = (y - x) / scale and dy/dzero = 0, outside y / scale and -scale.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, low: int, high: int
    ) -> torch.Tensor:
        """``scale`` and ``zero_point`` are [1]; the zero point is rounded into the codes."""
        s, z = float(scale), int(np.clip(np.rint(float(zero_point)), low, high))
        y = (x * (1.0 / s)).clamp_(low - z, high - z).round_().mul_(s)
        ctx.save_for_backward(x, y)
        ctx.scale, ctx.ends = s, ((low - z - 0.5) * s, (high - z + 0.5) * s)
        return y

    @staticmethod
    def backward(
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        """Gradients of the values [*], the scale [1] and the zero point [1]."""
        x, y = ctx.saved_tensors
        inside = torch.ops.aten.hardtanh_backward(grad, x, *ctx.ends)
        g, kept = grad.reshape(-1), inside.reshape(-1)
        d_scale = (torch.dot(g, y.reshape(-1)) - torch.dot(kept, x.reshape(-1))) / ctx.scale
        d_zero = (kept.sum() - g.sum()) * ctx.scale
        return inside, d_scale.reshape(1), d_zero.reshape(1), None, None


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
        rounded: torch.Tensor = _Uniform.apply(x, quant.scale[0], quant.zero_point[0], low, high)
        return rounded
    scale = torch.tensor(quant.scale, dtype=torch.float32, device=x.device)
    zero = torch.tensor(quant.zero_point, dtype=torch.int32, device=x.device)
    return torch.fake_quantize_per_channel_affine(x, scale, zero, quant.axis + 1, low, high)


def rounds(node: Node | None) -> bool:
    """Whether ``node`` (None: the graph's input) makes new codes; a RESHAPE or TRANSPOSE only moves them."""
    contract = None if node is None else spec(node.op).out
    return not isinstance(contract, Tied) or contract.rounds


class FakeQuant:
    """Hook: every activation that ``quants`` names is rounded to its grid.

    Copies of codes (RESHAPE, TRANSPOSE, ...) are rounded too where they are named: partial quantization counts there.
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

    Args:
        int16: scales of what int16 islands compute, by name; empty: the islands are float, or there are none.
        arm64: by the kernels of arm64 instead of x86-64, where they differ.
    """

    def __init__(
        self, graph: Graph, quants: Mapping[str, TensorQuant], int16: Mapping[str, float] | None = None,
        *, arm64: bool = False,
    ) -> None:  # fmt: skip
        self.graph, self.quants, self.arm64 = graph, quants, arm64
        self.islands = Int16Codes(graph, quants, int16) if int16 else None
        self._read = {t for node in graph.nodes if self._rounds_operands(node) for t in node.inputs}
        self._seen: dict[int, torch.Tensor] = {}  # as a hook: the rounded operands of those kernels
        self._inside: dict[int, torch.Tensor] = {}  # and what islands hold

    def _rounds_operands(self, node: Node) -> bool:
        return self._in_island(node) or spec(node.op).operand_steps is not None

    def _in_island(self, node: Node | None) -> bool:
        return self.islands is not None and node is not None and self.graph.in_float(node)

    def _quant(self, tensor: int) -> TensorQuant:
        return self.quants[self.graph.tensors[tensor].name]

    def codes(
        self, tensor: Tensor, y: torch.Tensor, node: Node | None, operands: Sequence[torch.Tensor] | None = None
    ) -> np.ndarray:
        """Codes that the kernel of ``node`` makes of its exact real result ``y``, int64.

        ``operands``: what it read, [B, *file shape]; some kernels round them one by one.
        """
        quant = self.quants[tensor.name]
        if node is not None and operands is not None and self.islands is not None and self._in_island(node):
            wide = self.islands.codes(node, operands)[node.outputs.index(tensor.id)]
            return self.islands.narrowed(tensor.id, wide).reshape(y.shape)
        if node is None or self.graph.is_float(node):
            return self._narrowed(y, node, quant) if tensor.id in self.graph.wide else exact_codes(y, quant)
        own = (spec(node.op).arm64_steps if self.arm64 else None) or spec(node.op).kernel_steps
        if own is not None:
            steps = own(y.detach().cpu().numpy(), self._quant(node.inputs[0]).scale[0], quant.scale[0])
            return np.clip(steps + quant.zero_point[0], *quant.limits).astype(np.int64)
        if (sum_codes := spec(node.op).sum_codes) is not None:
            read, written = ((q.scale[0], q.zero_point[0]) for q in (self._quant(node.inputs[0]), quant))
            count = math.prod(self.graph.tensors[node.inputs[0]].shape) // math.prod(tensor.shape)
            return np.clip(sum_codes(y.detach().cpu().numpy(), read, written, count), *quant.limits).astype(np.int64)
        if operands is not None and spec(node.op).operand_steps is not None:
            return self._codes_of_operands(quant, node, operands).reshape(y.shape)
        if not spec(node.op).accumulates:
            return exact_codes(y, quant, spec(node.op).rounding)
        low, high = quant.limits
        a, b = (np.asarray(self._quant(t).scale, np.float64) for t in (node.inputs[i] for i in spec(node.op).factors))
        sums = np.rint(y.detach().cpu().numpy() / (a * b)).astype(np.float32)  # the kernel's integer accumulator
        factor = a.astype(np.float32) * b.astype(np.float32) / np.float32(quant.scale[0])
        return np.clip(np.rint(sums * factor) + quant.zero_point[0], low, high).astype(np.int64)

    def _narrowed(self, y: torch.Tensor, node: Node | None, quant: TensorQuant) -> np.ndarray:
        """int8 codes that QUANTIZE makes of the int16 ones that the kernel of ``node`` gives."""
        assert node is not None
        grid, kernel = spec(node.op).wide, spec(node.op).kernel_steps
        assert grid is not None
        assert kernel is not None
        low, high = -(2**15) - grid.zero_point, 2**15 - 1 - grid.zero_point
        steps = kernel(y.detach().cpu().numpy(), self._quant(node.inputs[0]).scale[0], grid.scale)
        steps = np.clip(steps, low, high).astype(np.int64)
        factor = float(np.float32(grid.scale)) / float(np.float32(quant.scale[0]))
        return np.clip(requantized(steps, factor) + quant.zero_point[0], *quant.limits).astype(np.int64)

    def _codes_of_operands(self, quant: TensorQuant, node: Node, operands: Sequence[torch.Tensor]) -> np.ndarray:
        kernel = spec(node.op).operand_steps
        assert kernel is not None
        scales = [self._quant(t).scale[0] for t in node.inputs]
        steps_of = [np.rint(x.cpu().numpy() / s) for x, s in zip(align(*operands), scales, strict=True)]
        steps = kernel(*steps_of, *scales, quant.scale[0])
        whole = torch.tensor([-np.inf, np.inf], dtype=torch.float64)
        low, high = exact_codes(activate(whole, getattr(node.attrs, "fused_activation_function", "NONE")), quant)
        return np.clip(steps + quant.zero_point[0], low, high).astype(np.int64)

    def _operands(self, node: Node | None) -> list[Any] | None:
        """The operands that the kernel of ``node`` rounds, as the hook saw them; integer constants as they are."""
        island = self._in_island(node)
        if node is None or not self._rounds_operands(node) or (self.graph.is_float(node) and not island):
            return None
        seen = {**self._seen, **self._inside} if island else self._seen
        return [seen[t] if t in seen else self._constant(t) for t in node.inputs]

    def _constant(self, tensor: int) -> Any:
        data = self.graph.constant(tensor)
        return torch.tensor(data, dtype=torch.float64)[None] if np.issubdtype(data.dtype, np.floating) else data

    def __call__(self, tensor: Tensor, x: torch.Tensor, node: Node | None) -> torch.Tensor:
        """See :data:`qhyvit.sim.run.Hook`."""
        quant, operands = self.quants.get(tensor.name), self._operands(node)
        if self.islands is not None and node is not None and operands is not None and self._in_island(node):
            wide = self.islands.codes(node, operands)[node.outputs.index(tensor.id)].reshape(x.shape)
            self._inside[tensor.id] = inside = torch.from_numpy(wide * self.islands.scale(tensor.id))
            if quant is None:
                return inside
            codes = self.islands.narrowed(tensor.id, wide)
        elif quant is None:  # inside a float island
            return x
        else:
            codes = self.codes(tensor, x, node, operands)
        rounded = torch.from_numpy((codes - quant.zero_point[0]) * quant.scale[0]).to(x.device)
        if tensor.id in self._read:
            self._seen[tensor.id] = rounded
        return rounded


def quantized_biases(graph: Graph, quants: Mapping[str, TensorQuant]) -> Graph:
    """The graph with every bias rounded to int32 * s_in * s_w, as the file will hold it."""
    values = {}
    for node in graph.nodes:
        op = spec(node.op)
        if op.bias_input < 0 or len(node.inputs) <= op.bias_input or node.inputs[op.bias_input] < 0:
            continue
        s_in = quants[graph.tensors[node.inputs[op.data_input]].name].scale[0]
        s_w = np.asarray(quants[graph.tensors[node.inputs[op.weight_input]].name].scale)
        bias = graph.constant(node.inputs[op.bias_input]).astype(np.float64)
        step = s_in * s_w
        values[node.inputs[op.bias_input]] = np.clip(np.rint(bias / step), -(2**31), 2**31 - 1) * step
    return edit.with_constants(graph, values)
