"""SUM over constant axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops._reduce import ReducerAttrs, batched_axes, reduced_shape
from qhyvit.ops._spec import OpSpec


def _forward(inputs: Sequence[Any], attrs: ReducerAttrs) -> torch.Tensor:
    return inputs[0].sum(dim=batched_axes(inputs[1], inputs[0].dim()), keepdim=attrs.keep_dims)


OP = OpSpec(name="SUM", options="ReducerOptions", attrs=ReducerAttrs, infer_shape=reduced_shape, forward=_forward)
