"""One check of a verification, in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found with the limit that it had to keep, and whether that is good."""

    name: str
    passed: bool
    detail: str
