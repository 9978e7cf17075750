"""TANH: its int8 output has a prescribed grid.

The kernels' table has the C library's tanh, which is off by a last bit now and then: of ties one in five parts.
"""

from __future__ import annotations

import numpy as np
import torch

from qhyvit.ops.shared.integer import in_float64, tabulated
from qhyvit.ops.shared.spec import Fixed, OpSpec
from qhyvit.ops.shared.unary import same_shape, unary

OP = OpSpec(
    name="TANH",
    infer_shape=same_shape,
    forward=unary(torch.tanh),
    integer=tabulated(lambda x, attrs: in_float64(np.tanh)(x)),
    out=Fixed(1 / 128, 0),
    table=True,
    xnnpack=("Invalid Unary Op", "Tanh"),
)
