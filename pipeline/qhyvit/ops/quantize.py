"""QUANTIZE: float to codes, or codes to codes of another grid.

Our float graphs hold real numbers, so there it passes them on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qhyvit.ops.shared.fixed_point import by_fraction_bits, requantized
from qhyvit.ops.shared.integer import half_away, ratio, saturated, scale, steps_of, within
from qhyvit.ops.shared.spec import Codes, Kernel, NoAttrs, OpSpec, Quants
from qhyvit.ops.shared.unary import real_values, same_shape, unary


def _integer(codes: Sequence[Codes], quants: Quants, attrs: NoAttrs, kernel: Kernel) -> list[np.ndarray]:
    """Float values times 1 / scale in float32, to the nearest, ties to even; codes by a multiplier.

    The reference kernel divides by the scale and rounds ties away from zero.

    XNNPACK takes int8 to int8 where the ratio of scales is in [2^-8, 2^7), with 8 bits of it.
    """
    (read,), (write,), x = quants.reads, quants.writes, codes[0]
    assert x is not None
    if read is None and kernel.is_reference:
        steps = half_away((x.astype(np.float32) / scale(write)).astype(np.float64))
    elif read is None:
        steps = np.rint(x.astype(np.float32) * (np.float32(1) / scale(write))).astype(np.float64)
    elif read.bits == write.bits == 8 and not kernel.is_reference and within([ratio(read, write)], 2**-8, 2**7):
        steps = by_fraction_bits(steps_of(x, read), ratio(read, write), 8)
    else:
        steps = requantized(steps_of(x, read), read.scale[0] / write.scale[0])
    return [saturated(steps + write.zero_point, write)]


OP = OpSpec(
    name="QUANTIZE",
    options="QuantizeOptions",
    infer_shape=same_shape,
    forward=unary(real_values),
    integer=_integer,
    version=2,
    xnnpack=("Convert",),
)
