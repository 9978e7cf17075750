"""How work tells what it does, to whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Progress = Callable[[str, float], None]  # (what is done now, share of it done so far 0..1)
Log = Callable[[str], None]  # a line for people


def silent(*_: Any) -> None:
    """Says nothing."""
