"""NEG: float only. The int8 kernel negates codes, which is right at zero point 0 alone, and wraps at -128."""

from __future__ import annotations

import torch

from qhyvit.ops.shared.spec import OpSpec
from qhyvit.ops.shared.unary import same_shape, unary

OP = OpSpec(
    name="NEG",
    options="NegOptions",
    infer_shape=same_shape,
    forward=unary(torch.neg),
    delegate="the int8 NEG kernel negates codes: write SUB(0, x)",
    xnnpack=("Negate",),
    homogeneous=True,
)
