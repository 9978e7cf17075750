"""POW: elementwise power with broadcasting; float only."""

from __future__ import annotations

import torch

from qhyvit.ops.shared.elementwise import binary, broadcast_shape
from qhyvit.ops.shared.spec import OpSpec

OP = OpSpec(
    name="POW",
    options="PowOptions",
    infer_shape=broadcast_shape,
    forward=binary(torch.pow),
    delegate="there is no int8 POW kernel",
)
