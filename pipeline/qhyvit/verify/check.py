"""What a verification says in a line each: checks, which may fail, and notes, which inform."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found with the limit that it had to keep, and whether that is good."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Note:
    """What was found where nothing was asked for: it cannot fail, so nothing passed either."""

    name: str
    detail: str
