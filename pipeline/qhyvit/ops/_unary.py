"""Shape rule of ops with one operand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def same_shape(shapes: Sequence[tuple[int, ...]], attrs: Any, constants: Sequence[Any]) -> tuple[int, ...]:
    """The output has the shape of the first input."""
    return shapes[0]
