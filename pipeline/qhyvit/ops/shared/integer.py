"""Integer arithmetic of the kernels: from the codes that an op reads to the codes that it writes.

Codes are int64 arrays: [B, *file shape] of activations and [1, *file shape] of constants among the operands; weights
and biases have their file shape, tensors without a scale (shapes, axes) come as they are, absent ones as None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch

from qhyvit.graph.ir import Quantization
from qhyvit.ops.shared.elementwise import align
from qhyvit.ops.shared.fixed_point import multiplier_of, requantized, scaled
from qhyvit.ops.shared.spec import Codes, Forward, FusedActivation, Integer, Kernel, Quants

MULTIPLIER_BITS = 21  # of XNNPACK's sums
EXACT_IN_FLOAT32 = 2**24
TABLES = 128  # of each op's kernel that are kept: an image after the other asks for the same ones
ENDS: dict[str, tuple[float | None, float | None]] = {
    FusedActivation.RELU: (0.0, None), FusedActivation.RELU6: (0.0, 6.0), FusedActivation.RELU_N1_TO_1: (-1.0, 1.0)
}  # fmt: skip
Real = TypeVar("Real", float, np.ndarray)
Axes: TypeAlias = Callable[[Any], tuple[int, ...]]
FINER = {8: 20, 16: 15}  # bits by which the builtin sums of such tensors are finer than their operands

# --- from real results to codes ---


def half_away(steps: Real) -> Real:
    """The nearest integers, ties away from 0."""
    whole: Real = np.trunc(steps + np.copysign(0.5, steps))
    return whole


def saturated(codes: np.ndarray, quant: Quantization, attrs: Any = None, kernel: Kernel = Kernel.X86) -> np.ndarray:
    """``codes`` within the tensor's type and the fused activation, int64.

    The ends of the activation are codes themselves: XNNPACK rounds their ties to the even code, the builtin kernels
    to the step away from zero.
    """
    low, high = quant.limits
    fused = getattr(attrs, "fused_activation_function", FusedActivation.NONE)
    for end, bound in zip(ENDS.get(fused, (None, None)), (max, min), strict=True):
        if end is None:
            continue
        steps = float(np.float32(end) / scale(quant))
        reference = kernel.is_reference
        edge = int(half_away(steps) + quant.zero_point if reference else np.rint(steps + quant.zero_point))
        low, high = (bound(low, edge), high) if bound is max else (low, bound(high, edge))
    found: np.ndarray = np.clip(codes, low, high).astype(np.int64)
    return found


# --- what ops compute with ---


def steps_of(codes: np.ndarray, quant: Quantization) -> np.ndarray:
    """Codes less their zero point, int64."""
    return codes.astype(np.int64, copy=False) - quant.zero_point


def aligned(codes: Sequence[Codes], quants: Quants) -> list[np.ndarray]:
    """Steps of all operands in one rank, for ops that broadcast."""
    steps = [torch.from_numpy(steps_of(c, q)) for c, q in zip(codes, quants.reads, strict=True) if c is not None and q]
    return [x.numpy() for x in align(*steps)]


def scale(quant: Quantization) -> np.float32:
    """The one scale of a tensor, as the file holds it."""
    return np.float32(quant.scale[0])


def in_steps(codes: Sequence[Codes], quants: Quants) -> list[Any]:
    """Operands as ``OpSpec.forward`` takes them: steps of int8 and int16 tensors, exact in float32."""
    found: list[Any] = []
    for x, quant in zip(codes, quants.reads, strict=True):
        known = None if x is None or quant is None else torch.from_numpy(x.astype(np.float32)).sub_(quant.zero_point)
        found.append(x if known is None else known)
    return found


def ratio(read: Quantization, write: Quantization) -> np.float32:
    """The input's scale over the output's, as kernels compute it."""
    return scale(read) / scale(write)


def within(ratios: Sequence[np.float32], least: float, most: float) -> bool:
    """Whether XNNPACK takes such an op: every ratio of scales is in [least, most)."""
    return all(least <= r < most for r in ratios)


def outputs_of(result: Any) -> list[np.ndarray]:
    """What a forward gave, as arrays."""
    return [y.numpy() for y in (result if isinstance(result, tuple) else (result,))]


# --- kinds of kernels ---


def moves(forward: Forward) -> Integer:
    """Kernels that only move codes, or pick one of several: they read and write one grid."""

    def integer(codes: Sequence[Codes], quants: Quants, attrs: Any, kernel: Kernel) -> list[np.ndarray]:
        results = outputs_of(forward(in_steps(codes, quants), attrs))
        pairs = zip(results, quants.writes, strict=True)
        return [saturated(y + np.float32(quant.zero_point), quant, attrs, kernel) for y, quant in pairs]

    return integer


def looked_up(steps: Callable[[np.ndarray, Quantization, Quantization], np.ndarray]) -> Integer:
    """Elementwise kernels of one operand, computed once for each code that can be.

    Args:
        steps: (all steps of the input [256], its quantization, that of the output) -> steps of the output's scale.
    """

    @lru_cache(TABLES)
    def table(read: Quantization, write: Quantization) -> np.ndarray:
        low, high = read.limits
        return saturated(steps(steps_of(np.arange(low, high + 1), read), read, write) + write.zero_point, write)

    def integer(codes: Sequence[Codes], quants: Quants, attrs: Any, kernel: Kernel) -> list[np.ndarray]:
        (read,), (write,), x = quants.reads, quants.writes, codes[0]
        assert read is not None
        assert x is not None
        return [table(read, write)[x - read.limits[0]]]

    return integer


def tabulated(function: Callable[[np.ndarray, Any], np.ndarray], *, builtin: bool = False) -> Integer:
    """Elementwise kernels of one operand that make a table of 256 codes in float32.

    XNNPACK rounds ties to the even code, the builtin kernels to the step away from zero. Functions of the C library
    are exact here and off by a last bit there, so that results within that of a tie may part.

    Args:
        function: (all values of the input, float32 [256], attrs) -> results, float32.
        builtin: XNNPACK refuses the op.
    """

    @cache
    def with_attributes(attrs: Any, kernel: Kernel) -> Integer:
        def steps(x: np.ndarray, read: Quantization, write: Quantization) -> np.ndarray:
            y = function(x.astype(np.float32) * scale(read), attrs) / scale(write)
            if builtin or kernel.is_reference:
                return half_away(y)
            return np.rint(y + np.float32(write.zero_point)) - write.zero_point

        return looked_up(steps)

    def integer(codes: Sequence[Codes], quants: Quants, attrs: Any, kernel: Kernel) -> list[np.ndarray]:
        return list(with_attributes(attrs, kernel)(codes, quants, attrs, kernel))

    return integer


def in_float64(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """``function`` of float32 values, rounded once."""

    def of(x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # infinite in float32, as there
            found: np.ndarray = function(x.astype(np.float64)).astype(np.float32)
            return found

    return of


def accumulates(sum_up: Forward, data: int, weight: int, bias: int = -1, *, summed: Axes, in_float32: bool = False,
                builtin: Callable[[np.ndarray, Any], np.ndarray] = requantized) -> Integer:  # fmt: skip
    """Kernels that sum up products of codes in an integer and multiply that, as float32, by one float32 factor.

    So XNNPACK; the builtin kernels have a 31-bit multiplier. The factor is s_a * s_b / s_out, one for each output
    channel where the weight has many scales.

    Args:
        sum_up: (operands in steps, attrs) -> the sums without the bias; must be right in float32 where no partial sum
            can reach 2^24, which rules out Winograd's and other transformed convolutions.
        summed: (attrs) -> axes of the weight that one sum runs over, counted from the last; more are no harm.
        in_float32: the builtin kernel rounds s_a * s_b to float32.
        builtin: (sums int64, factors) -> steps, as the builtin kernel rounds them.
    """

    def integer(codes: Sequence[Codes], quants: Quants, attrs: Any, kernel: Kernel) -> list[np.ndarray]:
        (write,), first, second = quants.writes, quants.reads[data], quants.reads[weight]
        assert first is not None
        assert second is not None
        steps = in_steps([None if i == bias else x for i, x in enumerate(codes)], quants)
        if largest_sum(steps[data], steps[weight], summed(attrs)) >= EXACT_IN_FLOAT32:
            steps[data], steps[weight] = steps[data].double(), steps[weight].double()
        (total,) = outputs_of(sum_up(steps, attrs))
        if 0 <= bias < len(codes) and (offset := codes[bias]) is not None:
            total = total + offset.astype(np.float64).ravel()
        a, b = (np.asarray(q.scale, np.float32) for q in (first, second))
        if kernel.is_reference:
            product = a * b if in_float32 else np.multiply(a, b, dtype=np.float64)
            whole = builtin(total.astype(np.int64), product / write.scale[0])
            return [saturated(whole + write.zero_point, write, attrs, kernel)]
        found = total.astype(np.float32)
        found *= a * b / scale(write)
        np.rint(found, out=found)
        found += write.zero_point
        return [saturated(found, write, attrs, kernel)]

    return integer


def largest_sum(data: torch.Tensor, weight: torch.Tensor, summed: tuple[int, ...]) -> float:
    """What no sum of products, nor a part of one, exceeds in size."""
    sizes = weight.abs().sum(summed, dtype=torch.float64) if summed else weight.abs()
    low, high = torch.aminmax(data)
    return max(-float(low), float(high)) * float(sizes.max())


def clamped(low: float, top: float | None) -> Integer:
    """Builtin RELU kernels: steps on the output's grid by a 31-bit multiplier, within those of ``low`` and ``top``."""

    def steps(x: np.ndarray, read: Quantization, write: Quantization) -> np.ndarray:
        least, most = (None if end is None else half_away(float(np.float32(end) / scale(write))) for end in (low, top))
        found: np.ndarray = np.clip(requantized(x, float(ratio(read, write))), least, most)
        return found

    return looked_up(steps)


def sums(sign: int) -> Integer:
    """Kernels of a + b (``sign`` 1) and a - b (-1).

    XNNPACK, where both s_a / s_out and s_b / s_out are in [2^-10, 2^8): the larger one becomes a 21-bit integer, the
    other one is as coarse; the sum of steps times these is shifted back and rounded half up. The builtin kernels, and
    those of int16: both operands on twice the larger scale, some bits finer. From 2^8 on, where one step of an operand
    is more than all of the output's, codes may part.
    """

    def integer(codes: Sequence[Codes], quants: Quants, attrs: Any, kernel: Kernel) -> list[np.ndarray]:
        (write,), scales = quants.writes, [q.scale[0] for q in quants.reads if q is not None]
        ratios = [ratio(q, write) for q in quants.reads if q is not None]
        a, b = aligned(codes, quants)
        if write.bits == 16 or kernel.is_reference or not within(ratios, 2**-10, 2**8):
            steps = _on_finer_grid(a, b, scales, write.scale[0], FINER[write.bits], sign)
            return [saturated(steps + write.zero_point, write, attrs, Kernel.REFERENCE)]
        shift = MULTIPLIER_BITS - math.frexp(max(ratios))[1]
        m_a, m_b = (round(math.ldexp(float(r), shift)) for r in ratios)
        steps = (a * m_a + sign * (b * m_b) + (1 << (shift - 1))) >> shift
        return [saturated(steps + write.zero_point, write, attrs)]

    return integer


def _on_finer_grid(
    a: np.ndarray, b: np.ndarray, scales: Sequence[float], out: float, bits: int, sign: int
) -> np.ndarray:
    twice = 2 * max(scales)
    first, second = (scaled(x << bits, *multiplier_of(s / twice)) for x, s in zip((a, b), scales, strict=True))
    return scaled(first + sign * second, *multiplier_of(twice / ((1 << bits) * out)))
