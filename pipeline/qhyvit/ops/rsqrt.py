"""RSQRT: 1 / sqrt(x). The int8 kernel takes no value below its input's lowest code.

The kernel works in fixed point and rounds three times, so that near a tie its code is not the rounded real result
(0.12 % of all codes; one code more in a norm's only root changes every value behind it). ``_int8_steps`` repeats its
arithmetic, after the TFLite reference kernel's formulas: a Newton iteration for 1 / sqrt(q) in Q3.28, that times 2^20
as an integer, times a 31-bit multiplier.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from qhyvit.graph.ir import Quantization
from qhyvit.ops.shared.fixed_point import HIGHEST, halved, high_product, multiplier_of, scaled, widened
from qhyvit.ops.shared.integer import looked_up, saturated, scale
from qhyvit.ops.shared.spec import Codes, Kernel, NoAttrs, Nonnegative, OpSpec, Quants
from qhyvit.ops.shared.unary import same_shape, unary

# A square that rounds to code 0 is 0: the kernel then gives its highest code. Here it must stay finite, or its
# gradient (0 outside the range, times infinity) would be NaN in everything before it.
LEAST = 1e-20
HALF_SQRT_2 = 1518500250  # Q0.31
DATA_SHIFT = 20


def _forward(x: torch.Tensor) -> torch.Tensor:
    return torch.rsqrt(x.clamp_min(LEAST))


@cache
def _inverse_root(q: int) -> tuple[int, int]:
    """(multiplier, shift) of 1 / sqrt(q), 0 <= q < 2^29."""
    if q <= 1:
        return HIGHEST, 0
    pairs = (32 - q.bit_length() - 1) // 2 - 1
    shift = 11 - pairs
    value = (q << (2 * pairs)) >> 1  # Q3.28
    half, three_halves, x = halved(value, 1), (1 << 28) + (1 << 27), 1 << 28
    for _ in range(5):
        cube = widened(high_product(high_product(x, x), x), 6)
        x = widened(high_product(three_halves, x) - high_product(half, cube), 3)
    x = high_product(x, HALF_SQRT_2)
    return (x << -shift, 0) if shift < 0 else (x, -shift)


def _int8_steps(x: np.ndarray, read: Quantization, write: Quantization) -> np.ndarray:
    """Steps of the output's scale for steps ``x`` of the input's."""
    root = np.float32(np.sqrt(scale(read)))
    multiplier, shift = multiplier_of(1.0 / float(root * scale(write)))
    steps = []
    for value in x.tolist():
        if value <= 0:  # the kernel gives its highest code
            steps.append(HIGHEST)
            continue
        inverse, right = _inverse_root(value)
        steps.append(scaled(scaled(1, inverse, right + DATA_SHIFT), multiplier, shift - DATA_SHIFT))
    return np.array(steps)


_looked_up = looked_up(_int8_steps)


def _rounded(x: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.trunc(x + np.copysign(np.float32(0.5), x))
    return found


@cache
def _int16_table(in_scale: float, out_scale: float) -> np.ndarray:
    """Steps [513] at the ends of 512 equal parts of all int16 codes, shifted so that lines between them err less."""
    codes = np.array([-(2**15), 2**15 - 1], np.float32)
    reads, writes = np.float32(in_scale) * codes, np.float32(out_scale) * codes
    step, per_unit = np.ptp(reads) / np.float32(512), np.float32(2**16) / np.ptp(writes)
    x = reads[0] + np.arange(513, dtype=np.float32) * step
    x[-1] = reads[1]

    def steps(v: np.ndarray) -> np.ndarray:
        root = np.float32(1.0) / np.sqrt(np.where(v > 0, v, np.float32(1.0)))
        found: np.ndarray = np.where(v > 0, root, writes[1]) * per_unit
        return found

    ends, middles = steps(x), _rounded(steps(x[:-1] + step / np.float32(2)))
    between = _rounded((ends[1:] + _rounded(ends[:-1])) / np.float32(2))
    found = _rounded(ends)
    found[:-1] -= _rounded((between - middles) / np.float32(2))
    table: np.ndarray = np.clip(found, -(2**15), 2**15 - 1).astype(np.int64)
    return table


def _integer(codes: Sequence[Codes], quants: Quants, attrs: NoAttrs, kernel: Kernel) -> list[np.ndarray]:
    """In int16, where no code is below 0, between two values of a table."""
    (read,), (write,), x = quants.reads, quants.writes, codes[0]
    assert read is not None
    assert x is not None
    if write.bits == 8:
        return list(_looked_up(codes, quants, attrs, kernel))
    table = _int16_table(read.scale[0], write.scale[0])
    part = (x >> 7) + 256
    return [saturated(table[part] + (((table[part + 1] - table[part]) * (x & 127) + 64) >> 7), write)]


OP = OpSpec(
    name="RSQRT",
    infer_shape=same_shape,
    forward=unary(_forward),
    input_zero_point=-128,
    delegate="XNNPACK has no int8 RSQRT",
    integer=_integer,
    largest=lambda step: step**-0.5,
    nonnegative=Nonnegative.ALWAYS,
    table=True,
    xnnpack=("Reciprocal Square Root",),
)
