"""Fake quantization inside the executor: rounding with straight-through gradients, to search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from qhyvit.graph.ir import Node, Tensor
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Tied
from qhyvit.plan import Codes, Scheme, TensorQuant

AT_ONCE = 1 << 16  # elements of a sum


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
    def forward(ctx: Any, x: torch.Tensor, scale: float, zero_point: int, low: int, high: int) -> torch.Tensor:
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
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the values [*], the scale [1] and the zero point [1] (0 where it is not learned).

        A part at a time, which the caches hold: whole tensors in between would take six times as long.
        """
        x, y = ctx.saved_tensors
        inside = torch.empty_like(x, memory_format=torch.contiguous_format)
        # in float64 a sum of so many is the same in float32 whatever its order, which the number of threads changes
        d_scale, d_zero = torch.zeros(2, dtype=torch.float64).unbind()
        parts = (t.reshape(-1).split(AT_ONCE) for t in (grad, x, y, inside))
        for g, v, w, part in zip(*parts, strict=True):
            torch.ops.aten.hardtanh_backward.grad_input(g, v, *ctx.ends, grad_input=part)
            d_scale += (g * w - part * v).sum(dtype=torch.float64)
            if ctx.needs_input_grad[2]:
                d_zero += (part - g).sum(dtype=torch.float64)
        found = (d.to(x.dtype).reshape(1) for d in (d_scale / ctx.scale, d_zero * ctx.scale))
        return inside, *found, None, None


_uniform: Callable[..., torch.Tensor] = _Uniform.apply  # torch leaves both untyped
learned_uniform: Callable[..., torch.Tensor] = LearnedUniform.apply


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
        return _uniform(x, quant.scale[0], quant.zero_point[0], low, high)
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
