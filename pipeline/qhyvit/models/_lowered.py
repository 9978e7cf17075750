"""Functions of torch that litert-torch has no TFLite op for, or a bad one, as others that it has, while it traces."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


def _mean_inside(x: torch.Tensor, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True, divisor_override: int | None = None) -> torch.Tensor:  # fmt: skip
    """avg_pool2d; where padding does not count, with it, times a constant: pixels of a window over those inside."""
    pooled = F.avg_pool2d(x, kernel, stride, padding, ceil_mode, True, divisor_override)
    if count_include_pad or divisor_override is not None:
        return pooled
    geometry = zip(x.shape[-2:], pooled.shape[-2:], *map(_pair, (kernel, stride or kernel, padding)), strict=True)
    rows, columns = (_shares(*axis) for axis in geometry)
    gains = [[1 / (r * c) for c in columns] for r in rows]
    return pooled if min(rows + columns) == 1 else pooled * torch.tensor(gains)


def _shares(size: int, count: int, kernel: int, stride: int, padding: int) -> list[float]:
    """Which part of each window along an axis, as far as padding reaches, lies inside the map."""
    starts = [i * stride - padding for i in range(count)]
    ends = [min(start + kernel, size + padding) for start in starts]
    return [(min(end, size) - max(start, 0)) / (end - start) for start, end in zip(starts, ends, strict=True)]


def _largest(x: torch.Tensor, size: Any, return_indices: bool = False) -> Any:
    """adaptive_max_pool2d to sizes that divide the map's.

    Raises:
        NotImplementedError: another size, or indices.
    """
    sides = [have if s is None else s for s, have in zip(_pair(size), x.shape[-2:], strict=True)]
    if return_indices or any(have % s for s, have in zip(sides, x.shape[-2:], strict=True)):
        raise NotImplementedError(f"adaptive_max_pool2d of {list(x.shape[-2:])} to {sides}: windows of several sizes")
    if sides == [1, 1]:
        return x.amax((-2, -1), keepdim=True)
    return F.max_pool2d(x, [have // s for s, have in zip(sides, x.shape[-2:], strict=True)])


def _pair(size: Any) -> Sequence[Any]:
    """Height and width of one number, of a list of one, or of two."""
    size = tuple(size) if isinstance(size, list | tuple) else (size,)
    return size * (2 // len(size))


def _identity(rows: int, columns: int | None = None, *, dtype: Any = None, **where: Any) -> torch.Tensor:
    """eye, as a constant: the converter makes it of a count in uint8, which no interpreter knows."""
    values = [[float(i == j) for j in range(rows if columns is None else columns)] for i in range(rows)]
    return torch.tensor(values, dtype=dtype or torch.get_default_dtype())


def _expanded(x: torch.Tensor, *sizes: Any) -> torch.Tensor:
    """Tensor.expand, an axis at a time, with a reshape behind: else the converter loses a permutation there."""
    sizes = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    if len(sizes) < 3 or not x.dim():
        return x.expand(*sizes)
    x = x.reshape(*[1] * (len(sizes) - x.dim()), *x.shape)
    for axis, size in enumerate(sizes):
        if size not in (-1, x.shape[axis]):
            shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
            flat = x.reshape(math.prod(x.shape[:axis]), 1, 1, math.prod(x.shape[axis + 1 :]))
            x = flat.expand(-1, size, -1, -1).reshape(shape)
    return x


def _taken_off(x: torch.Tensor, other: Any, *, alpha: float = 1.0) -> torch.Tensor:
    """other - alpha * x; the converter exchanges a constant on the left with what is on the right."""
    return x * -alpha + other


def _divided_by(x: torch.Tensor, other: Any = 1.0) -> torch.Tensor:
    """other / x; see :func:`_taken_off`."""
    return x.pow(-1.0) * other


FORMS: Mapping[Any, Callable[..., Any]] = {
    F.avg_pool2d: _mean_inside,
    F.adaptive_max_pool2d: _largest,
    torch.eye: _identity,
    torch.Tensor.expand: _expanded,
    **dict.fromkeys((torch.Tensor.__rsub__, torch.rsub), _taken_off),
    **dict.fromkeys((torch.Tensor.__rdiv__, torch.reciprocal, torch.Tensor.reciprocal), _divided_by),
}


class Lowered(TorchFunctionMode):
    """Calls such a function's form in its place."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What ``func`` gives."""
        return FORMS.get(func, func)(*args, **(kwargs or {}))
