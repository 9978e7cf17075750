"""Whether plain data has a type: what files hold is looked at before anything is built on it."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any

MAX_NUMBER = 1 << 53  # whole numbers up to it are exact in JSON


@cache  # a plan asks thousands of times for the same few
def _form(kind: Any) -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
    """Origin and arguments of a type, and the types of its fields where it is a dataclass."""
    hints = typing.get_type_hints(kind) if is_dataclass(kind) else {}
    return typing.get_origin(kind), typing.get_args(kind), hints


def matches(value: Any, kind: Any, most: float = MAX_NUMBER) -> bool:
    """Whether plain data, tuples or dataclasses have a type, down to their last value; numbers are at most ``most``."""
    origin, of, hints = _form(kind)
    if kind is Any:
        return True
    if origin is types.UnionType:
        return any(matches(value, k, most) for k in of)
    if origin is tuple:
        return isinstance(value, tuple) and all(matches(v, of[0], most) for v in value)
    if origin is not None and issubclass(origin, Mapping):
        good = isinstance(value, dict)
        return good and all(matches(k, of[0], most) and matches(v, of[1], most) for k, v in value.items())
    if hints:
        return isinstance(value, kind) and all(matches(getattr(value, n), k, most) for n, k in hints.items())
    if kind is float:  # a whole number may be too large to become one
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= most
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= most
    return isinstance(value, kind)
