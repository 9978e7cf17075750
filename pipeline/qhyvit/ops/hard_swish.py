"""HARD_SWISH: x * relu6(x + 3) / 6; ADD with fused RELU6 and two MUL are much faster in int8.

The int8 kernel works with 16 bits: the gate relu6(x + 3) / 6 with 15 of them, x in steps of a fraction of the output's
scale, and a product that cuts off. ``_steps`` repeats it, after the TFLite reference kernel's formulas.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F

from qhyvit.graph.ir import Quantization
from qhyvit.ops._fixed_point import half_multiplier_of, halved
from qhyvit.ops._integer import looked_up, scale
from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape, unary

FINE = 7  # the kernel's x: steps / 2^7
GATE = 3.0 / 32768  # step of its gate before relu6, which then covers [-3, 3] in 16 bits
MOST = 2**15 - 1


def _clamped(x: int) -> int:
    return max(min(x, MOST), -MOST - 1)


def _rounded_product(a: int, b: int) -> int:
    """The high half of 2ab, 16 bits, rounded half away from zero."""
    product = a * b
    nudged = product + ((1 << 14) if product >= 0 else 1 - (1 << 14))
    return _clamped((abs(nudged) >> 15) * (1 if nudged >= 0 else -1))


def _cut_product(a: int, b: int) -> int:
    """The same, cut off towards zero."""
    product = a * b
    return _clamped((abs(product) >> 15) * (1 if product >= 0 else -1))


def _gate(x: int, multiplier: int, shift: int) -> int:
    """relu6(x + 3) / 6 in steps of 2^-15, x in steps of the input's scale / 2^7."""
    if shift > 0:
        x = _clamped(x << (shift - 1))
    x = _rounded_product(x, multiplier)
    if shift > 0:
        x = _clamped(x << 1)
    if shift < 0:
        x = halved(x, -shift)
    return (x + (1 << 15)) >> 1


def _steps(x: np.ndarray, read: Quantization, write: Quantization) -> np.ndarray:
    """Steps of the output's scale for steps ``x`` of the input's."""
    fine = np.float32(1 / 2**FINE) * scale(read)
    out_multiplier, out_shift = half_multiplier_of(float(fine / scale(write)))
    gate_multiplier, gate_shift = half_multiplier_of(float(fine / np.float32(GATE)))
    found = []
    for step in x:
        fine_step = _clamped(int(step) << FINE)
        on_grid = _rounded_product(fine_step, out_multiplier)
        product = _cut_product(_gate(fine_step, gate_multiplier, gate_shift), on_grid)
        found.append(halved(product, -out_shift))
    return np.array(found)


OP = OpSpec(
    name="HARD_SWISH",
    options="HardSwishOptions",
    infer_shape=same_shape,
    forward=unary(F.hardswish),
    delegate="XNNPACK has no int8 HARD_SWISH: rewrite it as ADD with RELU6, MUL, MUL",
    integer=looked_up(_steps),
)
