"""How an op with weights is G independent products of matrices, and the views of TFLite's ops.

Output channel c of the op is output c % O of group c // O, in every op that has groups: one group for dense layers,
one a channel for depthwise ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from qhyvit.ops.shared.conv import pad_nchw, to_nchw
from qhyvit.ops.shared.spec import Shape


@dataclass(frozen=True)
class LayerView:
    """How one op reads its data and its weight as matrices.

    Args:
        groups: (shape of the data, shape of the weight) -> G.
        rows: (weight, G) -> [G, O, K], a view where possible.
        weight_of: (rows [G, O, K], shape of the weight) -> the weight; the inverse of ``rows``.
        patches: (data [B, *file shape], shape of the weight, shape of the output, attrs, G) -> what each output
            position reads, [G, samples, K].
    """

    groups: Callable[[Shape, Shape], int]
    rows: Callable[[torch.Tensor, int], torch.Tensor]
    weight_of: Callable[[torch.Tensor, Shape], torch.Tensor]
    patches: Callable[[torch.Tensor, Shape, Shape, Any, int], torch.Tensor]


def one_group(data: Shape, weight: Shape) -> int:
    """``LayerView.groups`` of a dense layer."""
    return 1


def outputs_first(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """[G * O, ...] -> [G, O, K]."""
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def reshaped(rows: torch.Tensor, shape: Shape) -> torch.Tensor:
    """The inverse of :func:`outputs_first`."""
    return rows.reshape(shape)


def grouped(columns: torch.Tensor, taps: int, groups: int) -> torch.Tensor:
    """What ``F.unfold`` gives, [N, C * taps, L] -> [G, N * L, taps * C / G]: taps before channels, as weights are."""
    columns = torch.unflatten(columns, 1, (groups, -1, taps))  # [N, G, C / G, taps, L]
    return columns.permute(1, 0, 4, 3, 2).reshape(groups, -1, taps * columns.shape[2])


def _windows(x: torch.Tensor, weight: Shape, out: Shape, attrs: Any, groups: int) -> torch.Tensor:
    kernel, stride = weight[1:3], (attrs.stride_h, attrs.stride_w)
    dilation = (attrs.dilation_h_factor, attrs.dilation_w_factor)
    image = pad_nchw(to_nchw(x), kernel, stride, dilation, attrs.padding)
    return grouped(F.unfold(image, kernel, dilation=dilation, stride=stride), kernel[0] * kernel[1], groups)


def _channels_last_rows(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """[1, kh, kw, C * m] -> [C, m, kh * kw]."""
    return weight.reshape(-1, groups, weight.shape[3] // groups).permute(1, 2, 0)


def _channels_last(rows: torch.Tensor, shape: Shape) -> torch.Tensor:
    return rows.permute(2, 0, 1).reshape(shape)


def _tokens(x: torch.Tensor, weight: Shape, out: Shape, attrs: Any, groups: int) -> torch.Tensor:
    return x.reshape(1, -1, weight[1])


DENSE = LayerView(one_group, outputs_first, reshaped, _tokens)
CONVOLUTION = LayerView(lambda data, weight: data[3] // weight[3], outputs_first, reshaped, _windows)
DEPTHWISE = LayerView(lambda data, weight: data[3], _channels_last_rows, _channels_last, _windows)
