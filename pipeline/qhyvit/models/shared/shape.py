"""The shape of an input or a map: height, width and channels, and how torch has it."""

from __future__ import annotations

from qhyvit_device.arrays import Shape as Shape


def channels_first(shape: Shape) -> tuple[int, int, int, int]:
    """[1, C, H, W]."""
    height, width, channels = shape
    return 1, channels, height, width


def by_sides(shape: tuple[int, ...]) -> str:
    """Height and width of a map or grid in words."""
    return f"{shape[0]}x{shape[1]}"


def as_size(shape: tuple[int, ...]) -> str:
    """Height and width of an input, as ``--input-size`` takes them."""
    return str(shape[0]) if shape[0] == shape[1] else by_sides(shape)
