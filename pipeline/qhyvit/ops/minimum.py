"""MINIMUM: elementwise, with broadcasting; operands and result share one scale."""

from __future__ import annotations

import torch

from qhyvit.ops._elementwise import binary, broadcast_shape
from qhyvit.ops._spec import OpSpec, Tied

OP = OpSpec(
    name="MINIMUM",
    options="MaximumMinimumOptions",
    infer_shape=broadcast_shape,
    forward=binary(torch.minimum),
    out=Tied(None),
    quantizer=False,
    delegate="XNNPACK has no int8 MINIMUM",
)
