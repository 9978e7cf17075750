"""LOGISTIC: the sigmoid; its int8 output has a prescribed grid.

LiteRT's kernels make a table of 256 codes in float32, TensorFlow Lite Micro's computes in integers. XNNPACK's is 1/2 +
tanh(x / 2) / 2: below 1/2 the sum is coarser than the sigmoid itself, and what lies within 1e-5 of a tie is rounded as
if it were one. One such code of one tensor made 1 of 16 decisions of a mobilevitv2_050 differ. ``_halves`` repeats the
sum; the kernel's tanh is an approximation, so that of such ties one in a hundred still parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from qhyvit.ops.shared.fixed_point_exp import sigmoid
from qhyvit.ops.shared.integer import in_float64, tabulated
from qhyvit.ops.shared.saturating import within_reach
from qhyvit.ops.shared.spec import Codes, Fixed, Kernel, NoAttrs, Nonnegative, OpSpec, Quants
from qhyvit.ops.shared.unary import same_shape, unary

HALF = np.float32(0.5)


class _Sigmoid(torch.autograd.Function):
    """1 / (1 + exp(-x)) in one piece of memory: torch.sigmoid computes the last elements of each thread's share in
    another way.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = torch.neg(x).exp_().add_(1.0).reciprocal_()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        slope: torch.Tensor = (1.0 - y).mul_(y)
        return slope.mul_(grad)


_sigmoid: Callable[[torch.Tensor], torch.Tensor] = _Sigmoid.apply  # torch leaves it untyped


def _halves(x: np.ndarray, attrs: NoAttrs) -> np.ndarray:
    return HALF + HALF * in_float64(np.tanh)(x * HALF)


def _inverse(x: np.ndarray, attrs: NoAttrs) -> np.ndarray:
    return np.float32(1) / (np.float32(1) + in_float64(np.exp)(-x))


_of_halves, _of_inverse = tabulated(_halves), tabulated(_inverse)
_of_integers = within_reach(sigmoid, 8)


def _integer(codes: Sequence[Codes], quants: Quants, attrs: NoAttrs, kernel: Kernel) -> list[np.ndarray]:
    """XNNPACK's sum, the reference kernel's 1 / (1 + exp(-x)), or integers."""
    if kernel is Kernel.TFLM:
        return list(_of_integers(codes, quants, attrs, kernel))
    table = _of_inverse if kernel.is_reference else _of_halves
    return list(table(codes, quants, attrs, kernel))


OP = OpSpec(
    name="LOGISTIC",
    infer_shape=same_shape,
    forward=unary(_sigmoid),
    out=Fixed(1 / 256, -128),
    integer=_integer,
    nonnegative=Nonnegative.ALWAYS,
    xnnpack=("Invalid Unary Op", "Sigmoid"),
)
