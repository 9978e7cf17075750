"""GATHER: entries of one axis by constant indices of any rank; of a table of codes, by computed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.errors import GraphError
from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Codes, Copies, Kernel, OpSpec, Quants, Shape, Tied


@dataclass(frozen=True)
class GatherAttrs:
    """Attributes of GatherOptions."""

    axis: int = 0
    batch_dims: int = 0

    def __post_init__(self) -> None:
        if self.batch_dims != 0:
            raise GraphError(f"GATHER: batch_dims {self.batch_dims} is not supported, only 0")


def _forward(inputs: Sequence[Any], attrs: GatherAttrs) -> torch.Tensor:
    x: torch.Tensor = inputs[0]
    indices = np.asarray(inputs[1])
    axis = attrs.axis % (x.dim() - 1) + 1
    picked = x.index_select(axis, torch.as_tensor(indices.ravel().astype(np.int64), device=x.device))
    # [.., count, ..] -> [.., *shape of the indices, ..]
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _shape(shapes: Sequence[Shape], attrs: GatherAttrs, constants: Sequence[Any]) -> Shape:
    axis = attrs.axis % len(shapes[0])
    return (*shapes[0][:axis], *np.asarray(constants[1]).shape, *shapes[0][axis + 1 :])


_by_constant = moves(_forward)


def _integer(codes: Sequence[Codes], quants: Quants, attrs: GatherAttrs, kernel: Kernel) -> list[np.ndarray]:
    """Computed indices are int64 [B, *shape], and what they look up is a constant, [1, entries]."""
    entries, indices = codes[0], codes[1]
    assert entries is not None
    assert indices is not None
    if indices.dtype == np.int64:
        return [entries[0][indices]]
    return list(_by_constant(codes, quants, attrs, kernel))


OP = OpSpec(
    name="GATHER",
    options="GatherOptions",
    attrs=GatherAttrs,
    infer_shape=_shape,
    forward=_forward,
    integer=_integer,
    out=Tied(),
    delegate="XNNPACK has no int8 GATHER",
    copies=Copies.SOME,
)
