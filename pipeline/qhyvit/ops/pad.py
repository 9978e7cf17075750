"""PAD with zeros by constant amounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from qhyvit.ops._spec import NoAttrs, OpSpec, Shape, Tied


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    flat = [int(v) for pair in inputs[1][::-1] for v in pair]  # torch counts from the last axis
    return F.pad(inputs[0], flat)


def _shape(shapes: Sequence[Shape], attrs: NoAttrs, constants: Sequence[Any]) -> Shape:
    return tuple(s + int(a) + int(b) for s, (a, b) in zip(shapes[0], constants[1], strict=True))


OP = OpSpec(name="PAD", options="PadOptions", infer_shape=_shape, forward=_forward, out=Tied())
