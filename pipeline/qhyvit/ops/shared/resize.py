"""Attributes, shape rule and sampling positions shared by the two RESIZE ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhyvit.errors import GraphError
from qhyvit.ops.shared.spec import Shape


@dataclass(frozen=True)
class ResizeAttrs:
    """Attributes of ResizeBilinearOptions and ResizeNearestNeighborOptions."""

    align_corners: bool = False
    half_pixel_centers: bool = False

    def __post_init__(self) -> None:
        if self.align_corners and self.half_pixel_centers:
            raise GraphError("RESIZE: align_corners and half_pixel_centers exclude each other")


def step(size: int, new_size: int, attrs: ResizeAttrs) -> float:
    """Distance in the operand from one pixel of the result to the next."""
    if attrs.align_corners and new_size > 1:
        return (size - 1) / (new_size - 1)
    return size / new_size


def pixels(new_size: int) -> NDArray[np.float64]:
    """0, 1, ... new_size - 1."""
    return np.arange(new_size, dtype=np.float64)


def resized_shape(shapes: Sequence[Shape], attrs: ResizeAttrs, constants: Sequence[Any]) -> Shape:
    """Shape of the result: height and width are the second, constant input."""
    height, width = (int(v) for v in constants[1])
    return shapes[0][0], height, width, shapes[0][3]
