"""What a module says of its input: ``preprocess`` (a user's dictionary) or ``pretrained_cfg`` (timm), checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import ismethod
from numbers import Integral, Real
from typing import Any

from torch import nn

from qhyvit.errors import UsageError
from qhyvit_device.preprocess import FILTERS

# what most ImageNet models take, for a module that does not say; resize in parts of the input size
MEAN, STD, INTERPOLATION, CROP = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.875
KEYS = ("resize", "interpolation", "mean", "std", "input_size")
LARGEST_SIDE, LARGEST_RESIZE = 4096, 8192
# Of values in 0..1. Means lie inside that and deviations below 0.5; larger ones are those of values in 0..255.
LARGEST_MEAN, LARGEST_STD = 1.5, 2.0


@dataclass(frozen=True)
class InputFacts:
    """Height and width of the input, and ``preprocess`` as in :class:`qhyvit.models.shared.family.Variant`."""

    input_size: int
    preprocess: dict[str, Any]


def input_facts(name: str, module: nn.Module, size: int | None) -> InputFacts:
    """What is known of a module's input.

    Args:
        size: pixels, which the user asked for; None: the module's own.

    Raises:
        UsageError: the size is not known or no square, or what the module says is no dictionary of good values.
    """
    where, said = _said(name, module)
    if size is None and "input_size" not in said:
        raise UsageError(f"the input size of {name} is not known; give --input-size, pixels")
    own = _sides(where, said.get("input_size", size))
    if size is None and own[0] != own[1]:
        raise UsageError(
            f"{where}: input_size is {own[0]} x {own[1]}; only squares are supported: give --input-size, pixels, "
            "if the model can take a square"
        )
    size = size or own[0]
    resize = size / CROP
    if said.get("resize") is not None:
        scale = size / own[0] if own[0] == own[1] else 1.0
        resize = _positive(f"{where}: resize", said["resize"]) * scale
    mean, std = _mean_and_std(where, said.get("mean", MEAN), said.get("std", STD))
    preprocess = {"interpolation": _filter(where, said.get("interpolation", INTERPOLATION)), "mean": mean, "std": std}
    return InputFacts(size, {**preprocess, "resize": whole(f"{where}: resize", round(resize), LARGEST_RESIZE)})


def _said(name: str, module: nn.Module) -> tuple[str, dict[str, Any]]:
    """Where a module says something, and what; timm's share of the crop as pixels of the shortest side."""
    own, config = getattr(module, "preprocess", None), getattr(module, "pretrained_cfg", None)
    key = "pretrained_cfg" if own is None or own == {} else "preprocess"
    where, found = f"{name}.{key}", config if key == "pretrained_cfg" else own
    if found is None:
        return where, {}
    if not isinstance(found, Mapping):
        kind = "method" if ismethod(found) else type(found).__name__
        raise UsageError(
            f"{where} is a {kind}: what it does to images cannot be read from it; call it otherwise, and set {where} "
            "to a dictionary with input_size, resize, interpolation, mean and std (of values in 0..1)"
        )
    if key == "pretrained_cfg":
        said = {k: found[k] for k in KEYS if found.get(k) is not None and k != "resize"}
        if "input_size" in said and found.get("crop_pct") is not None:
            share = _positive(f"{where}: crop_pct", found["crop_pct"])
            said["resize"] = int(_sides(where, said["input_size"])[0] / share)
        return where, said
    unknown = sorted(str(k) for k in set(found) - set(KEYS))
    if unknown:
        raise UsageError(f"{where} has the key {unknown[0]!r}; it may have {', '.join(KEYS)}")
    return where, dict(found)


def _listed(value: Any) -> list[Any]:
    """A number, or anything like a list of them, as a list."""
    value = value.tolist() if hasattr(value, "tolist") else value  # arrays and tensors
    return list(value) if isinstance(value, list | tuple) else [value]


def _sides(where: str, value: Any) -> tuple[int, int]:
    """Height and width of S, (H, W) or (3, H, W)."""
    values = [whole(f"{where}: input_size", v, LARGEST_SIDE) for v in _listed(value)]
    if len(values) == 3 and values[0] != 3:
        raise UsageError(
            f"{where}: input_size {tuple(values)} has {values[0]} channels first; images have three: (3, H, W)"
        )
    if not 1 <= len(values) <= 3:
        raise UsageError(f"{where}: input_size has {len(values)} numbers; give S, (S, S) or (3, S, S)")
    return values[-2:][0], values[-1]


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


def _mean_and_std(where: str, mean: Any, std: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Three of each, for values in 0..1; one number is for all channels."""
    mean = tuple(_number(f"{where}: mean", v) for v in _three(where, "mean", mean))
    std = tuple(_positive(f"{where}: std", v) for v in _three(where, "std", std))
    if max(map(abs, mean)) > LARGEST_MEAN or max(std) > LARGEST_STD:
        small = [f"({', '.join(f'{v / 255:.4g}' for v in values)})" for values in (mean, std)]
        raise UsageError(
            f"{where}: mean {mean} and std {std} look like those of values in 0..255; give those of values in 0..1, "
            f"a 255th: mean {small[0]}, std {small[1]}"
        )
    return mean, std


def _three(where: str, key: str, value: Any) -> list[Any]:
    values = _listed(value)
    if len(values) not in (1, 3):
        raise UsageError(f"{where}: {key} has {len(values)} values; give three, or one for all channels")
    return values * (3 // len(values))
