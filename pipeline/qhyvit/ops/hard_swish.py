"""HARD_SWISH: x * relu6(x + 3) / 6; ADD with fused RELU6 and two MUL are much faster in int8.

The int8 kernel works with 16 bits: the gate relu6(x + 3) / 6 with 15 of them, x in steps of a fraction of the output's
scale, and a product that cuts off. ``_steps`` repeats it, after the TFLite reference kernel's formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F

from qhyvit.graph.ir import Quantization
from qhyvit.ops.shared.fixed_point import half_multiplier_of, halved, rounded_up
from qhyvit.ops.shared.integer import looked_up, scale
from qhyvit.ops.shared.spec import Codes, Kernel, NoAttrs, OpSpec, Quants
from qhyvit.ops.shared.unary import same_shape, unary

FINE = 7  # the kernel's x: steps / 2^7
GATE = 3.0 / 32768  # step of its gate before relu6, which then covers [-3, 3] in 16 bits
MOST = 2**15 - 1
AT_ONCE = 8  # elements that one of arm64's vectors holds


def _clamped(x: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.clip(x, -MOST - 1, MOST)
    return found


@dataclass(frozen=True)
class _Instructions:
    """How a processor rounds: the high half of 2ab in 16 bits, the same cut off, and x / 2^n."""

    product: Callable[[np.ndarray, Any], np.ndarray]
    cut: Callable[[np.ndarray, np.ndarray], np.ndarray]
    shifted: Callable[[np.ndarray, int], np.ndarray]


def _towards_zero(x: np.ndarray) -> np.ndarray:
    found: np.ndarray = (np.abs(x) >> 15) * np.sign(x)
    return found


SCALAR = _Instructions(
    lambda a, b: _clamped(_towards_zero(a * b + np.where(a * b >= 0, 1 << 14, 1 - (1 << 14)))),
    lambda a, b: _clamped(_towards_zero(a * b)),
    halved,
)
VECTOR = _Instructions(lambda a, b: _clamped(rounded_up(a * b, 15)), lambda a, b: _clamped((a * b) >> 15), rounded_up)


def _steps(x: np.ndarray, read: Quantization, write: Quantization, by: _Instructions) -> np.ndarray:
    """Steps of the output's scale for steps ``x`` of the input's."""
    fine = np.float32(1 / 2**FINE) * scale(read)
    out_multiplier, out_shift = half_multiplier_of(float(fine / scale(write)))
    multiplier, shift = half_multiplier_of(float(fine / np.float32(GATE)))
    fine_steps = _clamped(x << FINE)
    gate = by.product(_clamped(fine_steps << max(shift - 1, 0)), multiplier)
    gate = _clamped(gate << 1) if shift > 0 else by.shifted(gate, -shift)
    product = by.cut((gate + (1 << 15)) >> 1, by.product(fine_steps, out_multiplier))
    return by.shifted(product, -out_shift)


def _integer(codes: Sequence[Codes], quants: Quants, attrs: NoAttrs, kernel: Kernel) -> list[np.ndarray]:
    """arm64 computes eight elements of an image at once, and the rest of them as other processors do."""

    def table(by: _Instructions) -> np.ndarray:
        return looked_up(lambda x, read, write: _steps(x, read, write, by))(codes, quants, attrs, kernel)[0]

    if kernel is not Kernel.ARM64:
        return [table(SCALAR)]
    vector = table(VECTOR)
    size = vector[0].size
    whole = np.arange(size) < size // AT_ONCE * AT_ONCE
    return [np.where(whole.reshape(vector.shape[1:]), vector, table(SCALAR))]


OP = OpSpec(
    name="HARD_SWISH",
    options="HardSwishOptions",
    infer_shape=same_shape,
    forward=unary(F.hardswish),
    delegate="XNNPACK has no int8 HARD_SWISH: rewrite it as ADD with RELU6, MUL, MUL",
    integer=_integer,
    table=True,
    xnnpack=("HardSwish", "Hard Swish"),
)
