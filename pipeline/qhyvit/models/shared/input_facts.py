"""What a module says of its input: ``preprocess`` (a user's dictionary) or ``pretrained_cfg`` (timm), checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter, ismethod, signature
from numbers import Integral, Real
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from qhyvit.errors import ExportError, UsageError
from qhyvit.models.shared.shape import Shape
from qhyvit_device.arrays import MOST_CHANNELS, MOST_SIDE
from qhyvit_device.preprocess import FILTERS

# what most ImageNet models take, for a module that does not say; resize in parts of the input size
MEAN, STD, INTERPOLATION, CROP = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.875
GRAY_MEAN, GRAY_STD = 0.449, 0.226  # the same for gray: their means
KEYS = ("resize", "interpolation", "mean", "std", "input_size", "channel_order")
ORDERS = ("RGB", "BGR")
LARGEST_RESIZE = 8192
# Of values in 0..1. Means lie inside that and deviations below 0.5; larger ones are those of values in 0..255.
LARGEST_MEAN, LARGEST_STD = 1.5, 2.0
LEAST_STD = 0.003  # networks that take 0..255 have 1/255; less was divided by 255 twice
WHITE = 255
Values = tuple[float, ...]


@dataclass(frozen=True)
class Pixels:
    """What the user says of the input in the module's place; None: what the module says.

    Args:
        mean, std: one number, or one a channel, of values in 0..1 or in 0..255.
        channel_order: RGB or BGR.
    """

    mean: Values | None = None
    std: Values | None = None
    channel_order: str | None = None


@dataclass(frozen=True)
class InputFacts:
    """What the file's input is.

    Args:
        shape: height, width, channels.
        preprocess: as in :class:`qhyvit.models.shared.family.Variant`, in the order of the file's channels.
        is_bgr: whether the module takes blue first; the file takes red first all the same.
        notes: what was assumed or mended, a line each.
    """

    shape: Shape
    preprocess: dict[str, Any]
    is_bgr: bool = False
    notes: tuple[str, ...] = ()


def input_facts(name: str, module: nn.Module, size: tuple[int, int] | None, pixels: Pixels | None = None) -> InputFacts:
    """What is known of a module's input.

    Args:
        size: height and width, which the user asked for; None: the module's own.

    Raises:
        UsageError: the size is not known, or what the module or the user says is no dictionary of good values.
    """
    (where, said), pixels = _said(name, module), pixels or Pixels()
    if size is None and "input_size" not in said:
        raise UsageError(f"the input size of {name} is not known; give --input-size, pixels")
    own = _sides(where, said.get("input_size", size))
    height, width = size or own[1:]
    # timm's configuration has three channels whatever in_chans was
    channels = own[0] if own[0] is not None and _is_own(where) else find_channels(module, (height, width))
    resize = min(height, width) / CROP
    if said.get("resize") is not None:
        resize = _positive(f"{where}: resize", said["resize"]) * min(height, width) / min(own[1:])
    order = said.get("channel_order", "RGB") if pixels.channel_order is None else pixels.channel_order
    if order not in ORDERS:
        raise UsageError(f"{where}: channel_order is {order!r}, must be one of {', '.join(ORDERS)}")
    if order == "BGR" and channels != 3:
        raise UsageError(f"{name} takes {channels} channels; the order BGR is of three")
    mean, std, notes = normalisation(name, (where, said), channels, pixels, is_bgr=order == "BGR")
    preprocess: dict[str, Any] = {"mean": mean, "std": std}
    preprocess["interpolation"] = _filter(where, said.get("interpolation", INTERPOLATION))
    preprocess["resize"] = whole(f"{where}: resize", round(resize), LARGEST_RESIZE)
    return InputFacts((height, width, channels), preprocess, order == "BGR", notes)


def _is_own(where: str) -> bool:
    return where.endswith(".preprocess")


def check_inputs(name: str, module: nn.Module) -> None:
    """Refuse a module of several inputs.

    Raises:
        ExportError: it needs more than one; with their names.
    """
    try:
        parameters = signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return
    starred = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is Parameter.empty and p.kind not in starred]
    if len(needed) > 1:
        raise ExportError(
            f"{name} takes {len(needed)} inputs ({', '.join(needed)}); a file has one: give a module that takes "
            f"{needed[0]} alone, and holds the others"
        )


def find_channels(module: nn.Module, sides: tuple[int, int]) -> int:
    """Channels that a module takes: three where it runs on them, else those of its first layer.

    Raises:
        UsageError: there are too many.
    """
    layers = [m for m in module.modules() if isinstance(m, _ConvNd | nn.Linear)]
    called: list[Any] = []
    handles = [layer.register_forward_pre_hook(lambda m, _: called.append(m)) for layer in layers]
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, *sides))
        return 3
    except (Exception, SystemExit):  # it is said where the module is run on what is found here
        first: Any = next(iter([*called, *layers]), None)
    finally:
        for handle in handles:
            handle.remove()
    if first is None:
        return 3
    found = first.in_channels if isinstance(first, _ConvNd) else first.in_features / math.prod(sides)
    if found == int(found) and found > MOST_CHANNELS and isinstance(first, _ConvNd):
        raise UsageError(f"the first convolution takes {found} channels; an input has 1 to {MOST_CHANNELS}")
    return int(found) if 1 <= found <= MOST_CHANNELS and found == int(found) else 3


def normalisation(
    name: str, said: tuple[str, Mapping[str, Any]], channels: int, pixels: Pixels, *, is_bgr: bool
) -> tuple[Values, Values, tuple[str, ...]]:
    """Mean and deviation of values in 0..1, in the order of the file's channels, and what there is to say of them.

    Args:
        said: what somebody says, and where.

    Raises:
        UsageError: they are no numbers, or their unit is not clear.
    """
    where, own = said
    three_alone = channels != 3 and not _is_own(where)  # timm's configuration has those of RGB whatever in_chans was
    usual = {1: ((GRAY_MEAN,), (GRAY_STD,)), 3: (MEAN, STD)}.get(channels, ((0.0,), (1.0,)))
    notes, found = [], []
    for key, given, default in (("mean", pixels.mean, usual[0]), ("std", pixels.std, usual[1])):
        if given is not None:
            found.append(_each(f"--{key}", given, channels))
        elif key in own and not three_alone:
            found.append(_each(f"{where}: {key}", own[key], channels))
        else:
            values = _each(key, default, channels)
            notes.append(f"{name} says no {key}: {_shown(values)} is taken")
            found.append(values[::-1] if is_bgr else values)
    mean, std, mended = _of_one(where if pixels.mean is pixels.std is None else "--mean and --std", *found)
    if is_bgr:
        mean, std = mean[::-1], std[::-1]
    return mean, std, (*notes, *mended)


def _said(name: str, module: nn.Module) -> tuple[str, dict[str, Any]]:
    """Where a module says something, and what; timm's share of the crop as pixels of the shortest side."""
    own, config = getattr(module, "preprocess", None), getattr(module, "pretrained_cfg", None)
    key = "pretrained_cfg" if own is None or own == {} else "preprocess"
    where, found = f"{name}.{key}", config if key == "pretrained_cfg" else own
    if found is None:
        side = getattr(getattr(module, "config", None), "image_size", None)  # of transformers
        return (f"{name}.config", {"input_size": side}) if side is not None else (where, {})
    if not isinstance(found, Mapping):
        kind = "method" if ismethod(found) else type(found).__name__
        raise UsageError(
            f"{where} is a {kind}: what it does to images cannot be read from it; call it otherwise, and set {where} "
            "to a dictionary with input_size, resize, interpolation, mean and std"
        )
    if key == "pretrained_cfg":
        said = {k: found[k] for k in KEYS[1:-1] if found.get(k) is not None}
        if "input_size" in said and found.get("crop_pct") is not None:
            share = _positive(f"{where}: crop_pct", found["crop_pct"])
            said["resize"] = int(min(_sides(where, said["input_size"])[1:]) / share)
        return where, said
    unknown = sorted(str(k) for k in set(found) - set(KEYS))
    if unknown:
        raise UsageError(f"{where} has the key {unknown[0]!r}; it may have {', '.join(KEYS)}")
    return where, dict(found)


def _listed(value: Any) -> list[Any]:
    """A number, or anything like a list of them, as a list."""
    value = value.tolist() if hasattr(value, "tolist") else value  # arrays and tensors
    return list(value) if isinstance(value, list | tuple) else [value]


def _sides(where: str, value: Any) -> tuple[int | None, int, int]:
    """Channels, if they are said, height and width of S, (H, W) or (C, H, W)."""
    values = [whole(f"{where}: input_size", v, MOST_SIDE) for v in _listed(value)]
    if not 1 <= len(values) <= 3:
        raise UsageError(f"{where}: input_size has {len(values)} numbers; give S, (H, W) or (C, H, W)")
    if len(values) == 3 and values[0] > MOST_CHANNELS:
        raise UsageError(
            f"{where}: input_size {tuple(values)} has {values[0]} channels first; give (C, H, W), C up to "
            f"{MOST_CHANNELS}"
        )
    return (values[0] if len(values) == 3 else None), values[-2:][0], values[-1]


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise UsageError(f"{what} is {value!r}, not a number")
    return float(value)


def _positive(what: str, value: Any) -> float:
    if not _number(what, value) > 0:
        raise UsageError(f"{what} is {value!r}; it has to be above 0")
    return float(value)


def whole(what: str, value: Any, largest: int) -> int:
    """``value``, which is to be a whole number from 1 to ``largest``.

    Raises:
        UsageError: it is not.
    """
    number = _number(what, value)
    if not isinstance(value, Integral) or not 1 <= number <= largest:
        raise UsageError(f"{what} is {value!r}; it has to be a whole number, 1 to {largest}")
    return int(value)


def _filter(where: str, value: Any) -> str:
    if not isinstance(value, str) or value not in FILTERS:
        raise UsageError(f"{where}: interpolation {value!r} is not known; known: {', '.join(FILTERS)}")
    return value


def _each(what: str, value: Any, channels: int) -> Values:
    """A number a channel; one is for all."""
    values = _listed(value)
    if len(values) not in (1, channels):
        raise UsageError(f"{what} has {len(values)} values; give {channels}, or one for all channels")
    read = _positive if what.endswith("std") else _number
    return tuple(read(what, v) for v in values) * (channels // len(values))


def _shown(values: Values) -> str:
    return f"({', '.join(f'{v:.4g}' for v in values)})"


def _of_one(where: str, mean: Values, std: Values) -> tuple[Values, Values, tuple[str, ...]]:
    """Mean and deviation for values in 0..1; those of values in 0..255 are divided by 255, which a line says."""
    figures = f"{where}: mean {_shown(mean)} and std {_shown(std)}"
    bytes_in = max(map(abs, mean)) > LARGEST_MEAN, max(std) > LARGEST_STD
    if not any(bytes_in):
        if max(std) < LEAST_STD:
            raise UsageError(f"{figures}: so small a std is one divided by 255 twice; give that of values in 0..1")
        return mean, std, ()
    if not (all(bytes_in) or (bytes_in[0] and set(std) == {1.0}) or (bytes_in[1] and not any(mean))):
        raise UsageError(f"{figures} have two units; give both for values in 0..1, or both for values in 0..255")
    small = [tuple(v / WHITE for v in values) for values in (mean, std)]
    if max(map(abs, small[0])) > LARGEST_MEAN or max(small[1]) > LARGEST_STD:
        raise UsageError(f"{figures} are of values beyond 0..255; pixels are 0..255, or 0..1")
    said = f"{figures} are those of values in 0..255: a 255th is taken, mean {_shown(small[0])}, std {_shown(small[1])}"
    return small[0], small[1], (said,)
