"""Forward and shape rule of the elementwise ops with one operand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from qhyvit.errors import GraphError
from qhyvit.ops.shared.spec import Forward, Shape


def unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Forward:
    """Forward of an elementwise op with one operand and no attributes."""

    def forward(inputs: Sequence[Any], attrs: Any) -> torch.Tensor:
        return function(inputs[0])

    return forward


def same_shape(shapes: Sequence[Shape], attrs: Any, constants: Sequence[Any]) -> Shape:
    """The output has the shape of the first input."""
    return shapes[0]


def real_values(x: torch.Tensor) -> torch.Tensor:
    """Pass real values on.

    Raises:
        GraphError: codes of a constant came instead; their scale is unknown here.
    """
    if not isinstance(x, torch.Tensor):
        raise GraphError("a constant in integer codes cannot be run; read the float model")
    return x
