"""Attributes, shape rule and window sums shared by the pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qhyvit.ops.shared.conv import out_size, pad_nchw, to_nchw
from qhyvit.ops.shared.spec import FusedActivation, Shape


@dataclass(frozen=True)
class PoolAttrs:
    """Attributes of Pool2DOptions."""

    padding: str = "SAME"
    stride_h: int = 1
    stride_w: int = 1
    filter_height: int = 1
    filter_width: int = 1
    fused_activation_function: str = FusedActivation.NONE

    @property
    def stride(self) -> tuple[int, int]:
        """Stride as torch wants it."""
        return self.stride_h, self.stride_w

    @property
    def kernel(self) -> tuple[int, int]:
        """Window as torch wants it."""
        return self.filter_height, self.filter_width


def padded(x: torch.Tensor, attrs: PoolAttrs, value: float) -> torch.Tensor:
    """[B, N, H, W, C] -> [B * N, C, H, W], padded with ``value``."""
    return pad_nchw(to_nchw(x), attrs.kernel, attrs.stride, (1, 1), attrs.padding, value)


def pooled_shape(shapes: Sequence[Shape], attrs: PoolAttrs, constants: Sequence[Any]) -> Shape:
    """Shape of the result of a pool."""
    n, h, w, c = shapes[0]
    height = out_size(h, attrs.filter_height, attrs.stride_h, 1, attrs.padding)
    return n, height, out_size(w, attrs.filter_width, attrs.stride_w, 1, attrs.padding), c
