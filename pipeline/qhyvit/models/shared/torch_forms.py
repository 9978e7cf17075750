"""Functions of torch that litert-torch has no TFLite op for, or a bad one, as others that it has, while it traces."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


def _mean_inside(x: torch.Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True, divisor_override: int | None = None) -> torch.Tensor:  # fmt: skip
    """avg_pool2d; where padding does not count, with it, times a constant: pixels of a window over those inside."""
    pooled = F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, True, divisor_override)
    if count_include_pad or divisor_override is not None:
        return pooled
    sizes = (kernel_size, stride or kernel_size, padding)
    geometry = zip(x.shape[-2:], pooled.shape[-2:], *map(_pair, sizes), strict=True)
    rows, columns = (_shares(*axis) for axis in geometry)
    gains = [[1 / (r * c) for c in columns] for r in rows]
    return pooled if min(rows + columns) == 1 else pooled * torch.tensor(gains, dtype=x.dtype)


def _shares(size: int, count: int, kernel: int, stride: int, padding: int) -> list[float]:
    """Which part of each window along an axis, as far as padding reaches, lies inside the map."""
    starts = [i * stride - padding for i in range(count)]
    ends = [min(start + kernel, size + padding) for start in starts]
    return [(min(end, size) - max(start, 0)) / (end - start) for start, end in zip(starts, ends, strict=True)]


def _largest(x: torch.Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """adaptive_max_pool2d to sizes that divide the map's.

    Raises:
        NotImplementedError: another size, or indices.
    """
    sides = [have if s is None else s for s, have in zip(_pair(output_size), x.shape[-2:], strict=True)]
    if return_indices or any(have % s for s, have in zip(sides, x.shape[-2:], strict=True)):
        raise NotImplementedError(f"adaptive_max_pool2d of {list(x.shape[-2:])} to {sides}: windows of several sizes")
    if sides == [1, 1]:
        return x.amax((-2, -1), keepdim=True)
    return F.max_pool2d(x, [have // s for s, have in zip(sides, x.shape[-2:], strict=True)])


def _pair(size: Any) -> Sequence[Any]:
    """Height and width of one number, of a list of one, or of two."""
    sides = tuple(size) if isinstance(size, list | tuple) else (size,)
    return sides * (2 // len(sides))


def _identity(n: int, m: int | None = None, *, dtype: Any = None, **where: Any) -> torch.Tensor:
    """eye, as a constant: the converter makes it of a count in uint8, which no interpreter knows."""
    values = [[float(i == j) for j in range(n if m is None else m)] for i in range(n)]
    return torch.tensor(values, dtype=dtype or torch.get_default_dtype())


def _expanded(x: torch.Tensor, *size: Any, **named: Any) -> torch.Tensor:
    """Tensor.expand, an axis at a time, with a reshape behind: the converter loses a permutation that follows."""
    sizes = _numbers(named.get("size", size))
    if len(sizes) < 3 or not x.dim():
        return x.expand(*sizes)
    x = x.reshape(*[1] * (len(sizes) - x.dim()), *x.shape)
    for axis, count in enumerate(sizes):
        if count not in (-1, x.shape[axis]):
            shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
            x = _copies(x, axis, count).reshape(shape)
    return x


def _numbers(sizes: Any) -> tuple[int, ...]:
    """Sizes that were given one by one, or as one list."""
    sizes = sizes if isinstance(sizes, list | tuple) else (sizes,)
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else tuple(sizes)


def _copies(x: torch.Tensor, axis: int, count: int) -> torch.Tensor:
    """[all axes in front of ``axis``, count, 1, the others]."""
    flat = x.reshape(math.prod(x.shape[:axis]), 1, 1, math.prod(x.shape[axis:]))
    return flat.expand(-1, count, -1, -1)


def _repeated(x: torch.Tensor, *sizes: Any, **named: Any) -> torch.Tensor:
    """Tensor.repeat, and tile, which takes fewer sizes than axes; see :func:`_expanded`."""
    counts = _numbers(next(iter(named.values()), sizes))
    counts = (1,) * (x.dim() - len(counts)) + counts
    x = x.reshape(*[1] * (len(counts) - x.dim()), *x.shape)
    for axis, count in enumerate(counts):
        if count != 1:
            x = _copies(x, axis, count).reshape(*x.shape[:axis], count * x.shape[axis], *x.shape[axis + 1 :])
    return x


def _each_repeated(x: torch.Tensor, repeats: Any, dim: int | None = None, **size: Any) -> torch.Tensor:
    """repeat_interleave; see :func:`_expanded`."""
    if dim is None or not isinstance(repeats, int):
        return torch.repeat_interleave(x, repeats, dim, **size)
    axis = dim % x.dim()
    shape = (*x.shape[:axis], repeats * x.shape[axis], *x.shape[axis + 1 :])
    return _copies(x, axis + 1, repeats).reshape(shape)


def _taken_off(x: torch.Tensor, other: Any, *, alpha: float = 1) -> torch.Tensor:
    """other - alpha * x; the converter exchanges a constant on the left with what is on the right."""
    found: torch.Tensor = x * -alpha + other
    return found


def _plus(x: Any, other: Any, *, alpha: float = 1) -> torch.Tensor:
    """x + alpha * other; the converter knows no alpha."""
    found: torch.Tensor = x + (other if alpha == 1 else other * alpha)
    return found


def _minus(x: Any, other: Any, *, alpha: float = 1) -> torch.Tensor:
    """x - alpha * other; see :func:`_plus` and :func:`_taken_off`."""
    if not isinstance(x, torch.Tensor):
        return _taken_off(other, x, alpha=alpha)
    found: torch.Tensor = x - (other if alpha == 1 else other * alpha)
    return found


def _divided_by(x: torch.Tensor, other: Any = 1.0) -> torch.Tensor:
    """other / x; see :func:`_taken_off`."""
    found: torch.Tensor = x.pow(-1.0) * other
    return found


def _softplus(x: torch.Tensor, beta: float = 1.0, threshold: float = 20.0) -> torch.Tensor:
    """log(1 + exp(beta x)) / beta without exp or a choice: max(x, 0) less the logarithm of a sigmoid from 1/2 to 1."""
    return F.relu(x) - (x.abs() * beta).sigmoid().log() * (1.0 / beta)


def _mish(x: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    """x tanh(softplus(x))."""
    return x * _softplus(x).tanh()


def _elu(x: torch.Tensor, alpha: float = 1.0, inplace: bool = False) -> torch.Tensor:
    """x, and alpha (exp(x) - 1) below 0, where 1 + exp(x) is 1 / sigmoid(-x), of a sigmoid from 1/2 to 1."""
    low = F.relu(x * -1.0).sigmoid()
    return F.relu(x) + (_divided_by(low) - 2.0) * alpha


def _selu(x: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    """ELU on two scales."""
    return _elu(x, 1.6732632423543772) * 1.0507009873554805


def _celu(x: torch.Tensor, alpha: float = 1.0, inplace: bool = False) -> torch.Tensor:
    """ELU that is as steep on both sides."""
    return _elu(x * (1.0 / alpha)) * alpha


CUBIC = -0.75  # torch's parameter of the cubic convolution kernel


def _cubic(x: float) -> float:
    """Weight of a sample at this distance (Keys, Cubic convolution interpolation, 1981, equation 4)."""
    x = abs(x)
    if x < 1:
        return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    return ((CUBIC * x - 5 * CUBIC) * x + 8 * CUBIC) * x - 4 * CUBIC if x < 2 else 0.0


def _cubic_rows(size: int, out: int, scale: float | None, corners: bool | None) -> list[list[float]]:
    """What each sample behind takes of those before, [out, size]; the outermost ones stand for those beyond."""
    step = (size - 1) / max(out - 1, 1) if corners else 1 / scale if scale else size / out
    rows = []
    for i in range(out):
        place = i * step if corners else (i + 0.5) * step - 0.5
        row = [0.0] * size
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            row[min(max(tap, 0), size - 1)] += _cubic(place - tap)
        rows.append(row)
    return rows


def _resized(
    x: torch.Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> torch.Tensor:  # fmt: skip
    """interpolate; a bicubic one as a product with a matrix along each axis, in the place of sixteen gathers."""
    if mode != "bicubic" or antialias:
        return F.interpolate(x, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    factors = (None, None) if scale_factor is None else _pair(scale_factor)
    sides = x.shape[-2:] if size is None else _pair(size)
    ends = [int(side * factor) if factor else int(side) for side, factor in zip(sides, factors, strict=True)]
    kept = (None, None) if recompute_scale_factor else factors
    for axis in (1, 0):
        rows = _cubic_rows(x.shape[-2:][axis], ends[axis], kept[axis], align_corners)
        x = F.linear(x if axis else x.transpose(-1, -2), torch.tensor(rows, dtype=x.dtype))
    return x.transpose(-1, -2)


def _patches(
    sides: Sequence[int], kernel_size: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[int, int, int, int] | None:  # fmt: skip
    """Rows and columns of patches that lie side by side, and their height and width; None where they lie otherwise."""
    kernel, step = _pair(kernel_size), _pair(stride)
    apart = tuple(kernel) == tuple(step) and {*_pair(dilation)} == {1} and {*_pair(padding)} == {0}
    if not apart or any(side % k for side, k in zip(sides, kernel, strict=True)):
        return None
    return sides[0] // kernel[0], sides[1] // kernel[1], kernel[0], kernel[1]


def _unfolded(
    x: torch.Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> torch.Tensor:  # fmt: skip
    """unfold; of patches side by side by moving axes, in the place of a gather."""
    found = _patches(x.shape[-2:], kernel_size, dilation, padding, stride)
    if found is None or x.dim() != 4:
        return F.unfold(x, kernel_size, dilation, padding, stride)
    (count, channels), (rows, columns, high, wide) = x.shape[:2], found
    x = x.reshape(count, channels, rows, high, columns, wide).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(count, channels * high * wide, rows * columns)


def _folded(
    x: torch.Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> torch.Tensor:  # fmt: skip
    """fold; see :func:`_unfolded`."""
    sides = _pair(output_size)
    found = _patches(sides, kernel_size, dilation, padding, stride)
    if found is None or x.dim() != 3:
        return F.fold(x, output_size, kernel_size, dilation, padding, stride)
    rows, columns, high, wide = found
    x = x.reshape(len(x), -1, high, wide, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(len(x), -1, *sides)


FORMS: Mapping[Any, Callable[..., Any]] = {
    F.avg_pool2d: _mean_inside,
    F.adaptive_max_pool2d: _largest,
    torch.eye: _identity,
    torch.Tensor.expand: _expanded,
    torch.Tensor.expand_as: lambda x, other: _expanded(x, *other.shape),
    F.interpolate: _resized,
    F.unfold: _unfolded,
    F.fold: _folded,
    F.softplus: _softplus,
    F.mish: _mish,
    F.elu: _elu,
    F.selu: _selu,
    F.celu: _celu,
    **dict.fromkeys((torch.Tensor.repeat, torch.Tensor.tile, torch.tile), _repeated),
    **dict.fromkeys((torch.Tensor.repeat_interleave, torch.repeat_interleave), _each_repeated),
    **dict.fromkeys((torch.add, torch.Tensor.add), _plus),
    **dict.fromkeys((torch.sub, torch.Tensor.sub, torch.subtract, torch.Tensor.subtract), _minus),
    **dict.fromkeys((torch.Tensor.__rsub__, torch.rsub), _taken_off),
    **dict.fromkeys((torch.Tensor.__rdiv__, torch.reciprocal, torch.Tensor.reciprocal), _divided_by),
}


class TorchForms(TorchFunctionMode):
    """Calls such a function's form in its place; the forms' parameters have torch's names, but for the tensor's."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What ``func`` gives."""
        form, named = FORMS.get(func, func), dict(kwargs or {})
        if form is not func and "input" in named:
            args = (named.pop("input"), *args)
        return form(*args, **named)
