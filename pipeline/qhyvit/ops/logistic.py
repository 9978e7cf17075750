"""LOGISTIC: the sigmoid; its int8 output has a prescribed grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops._spec import Fixed, NoAttrs, OpSpec
from qhyvit.ops._unary import same_shape


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    return torch.sigmoid(inputs[0])


OP = OpSpec(name="LOGISTIC", infer_shape=same_shape, forward=_forward, out=Fixed(1 / 256, -128))
