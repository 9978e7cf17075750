"""TANH: its int8 output has a prescribed grid.

The table of LiteRT's kernels has the C library's tanh, which is off by a last bit now and then: of ties one in five
parts. TensorFlow Lite Micro computes in integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from qhyvit.ops.shared.fixed_point_exp import hyperbolic_tangent
from qhyvit.ops.shared.integer import in_float64, tabulated
from qhyvit.ops.shared.saturating import within_reach
from qhyvit.ops.shared.spec import Codes, Fixed, Kernel, NoAttrs, OpSpec, Quants
from qhyvit.ops.shared.unary import same_shape, unary

_of_floats, _of_integers = tabulated(lambda x, attrs: in_float64(np.tanh)(x)), within_reach(hyperbolic_tangent, 7)


def _integer(codes: Sequence[Codes], quants: Quants, attrs: NoAttrs, kernel: Kernel) -> list[np.ndarray]:
    table = _of_integers if kernel is Kernel.TFLM else _of_floats
    return list(table(codes, quants, attrs, kernel))


OP = OpSpec(
    name="TANH",
    infer_shape=same_shape,
    forward=unary(torch.tanh),
    integer=_integer,
    out=Fixed(1 / 128, 0),
    table=True,
    xnnpack=("Invalid Unary Op", "Tanh"),
)
