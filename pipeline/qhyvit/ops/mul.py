"""MUL: elementwise product with broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from qhyvit.ops._elementwise import ElementwiseAttrs, binary, broadcast_shape
from qhyvit.ops._fixed_point import requantized
from qhyvit.ops._integer import accumulates, aligned, saturated, scale
from qhyvit.ops._spec import Codes, Kernel, OpSpec, Quants

_forward = binary(operator.mul)


def _integer(codes: Sequence[Codes], quants: Quants, attrs: ElementwiseAttrs, kernel: Kernel) -> list[np.ndarray]:
    """In int16 the product of codes times s_a s_b / s_out, which the kernel computes in float32."""
    (write,), (a, b) = quants.writes, quants.reads
    if write.bits == 8:
        return list(accumulates(_forward, 0, 1)(codes, quants, attrs, kernel))
    assert a is not None
    assert b is not None
    first, second = aligned(codes, quants)
    return [saturated(requantized(first * second, float(scale(a) * scale(b) / scale(write))), write, attrs)]


OP = OpSpec(
    name="MUL",
    options="MulOptions",
    attrs=ElementwiseAttrs,
    infer_shape=broadcast_shape,
    forward=_forward,
    factors=(0, 1),
    integer=_integer,
)
