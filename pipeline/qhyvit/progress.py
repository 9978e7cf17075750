"""How work tells what it does, to whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Progress = Callable[[str, float], None]  # (what is done now, share of it done so far 0..1)
Log = Callable[[str], None]  # a line for people


def told(items: Sequence[T], what: str, progress: Progress, start: float = 0.0, stop: float = 1.0) -> Iterator[T]:
    """The items, one by one; ``progress`` is told that ``what`` goes from the share ``start`` to ``stop`` meanwhile."""
    for number, item in enumerate(items):
        progress(what, start + (stop - start) * number / len(items))
        yield item


def silent(*_: Any) -> None:
    """Says nothing."""
