"""RELU as an op of its own (where it could not be fused)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops._spec import NoAttrs, OpSpec
from qhyvit.ops._unary import same_shape


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    return torch.relu(inputs[0])


OP = OpSpec(name="RELU", infer_shape=same_shape, forward=_forward, delegate="XNNPACK has no int8 RELU alone: fuse it")
