"""MUL: elementwise product with broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from qhyvit.ops.shared.elementwise import ElementwiseAttrs, binary, broadcast_shape
from qhyvit.ops.shared.fixed_point import of_float32, requantized
from qhyvit.ops.shared.integer import accumulates, aligned, saturated, scale, within
from qhyvit.ops.shared.spec import Codes, Kernel, Nonnegative, OpSpec, Quants

_forward = binary(operator.mul)
_by_float = accumulates(_forward, 0, 1, summed=lambda attrs: ())


def _integer(codes: Sequence[Codes], quants: Quants, attrs: ElementwiseAttrs, kernel: Kernel) -> list[np.ndarray]:
    """XNNPACK's float32 factor if s_a s_b / s_out is in [2^-16, 2^8), as an integer on arm64; else, and in int16,
    a 31-bit one. From 2^8 on, where one step of the product is more than all of the output's, codes may part.
    """
    (write,), (a, b) = quants.writes, quants.reads
    assert a is not None
    assert b is not None
    factor = scale(a) * scale(b) / scale(write)
    taken = write.bits == 8 and not kernel.is_reference and within([factor], 2**-16, 2**8)
    if taken and kernel is Kernel.X86:
        return list(_by_float(codes, quants, attrs, kernel))
    first, second = aligned(codes, quants)
    if taken:
        return [saturated(of_float32(first * second, factor) + write.zero_point, write, attrs)]
    exact = a.scale[0] * b.scale[0] / write.scale[0]  # TensorFlow Lite Micro computes it in double precision
    steps = requantized(first * second, exact if kernel is Kernel.TFLM else float(factor))
    return [saturated(steps + write.zero_point, write, attrs, Kernel.REFERENCE)]


OP = OpSpec(
    name="MUL",
    options="MulOptions",
    attrs=ElementwiseAttrs,
    infer_shape=broadcast_shape,
    forward=_forward,
    factors=(0, 1),
    integer=_integer,
    nonnegative=Nonnegative.OF_ALL,
    pairwise=True,
    xnnpack=("Multiply", "Square ("),
)
