"""SUB: elementwise difference with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops._elementwise import ElementwiseAttrs, align, broadcast_shape
from qhyvit.ops._spec import OpSpec


def _forward(inputs: Sequence[Any], attrs: ElementwiseAttrs) -> torch.Tensor:
    a, b = align(inputs[0], inputs[1])
    return a - b


OP = OpSpec(
    name="SUB", options="SubOptions", attrs=ElementwiseAttrs, infer_shape=broadcast_shape, forward=_forward
)
