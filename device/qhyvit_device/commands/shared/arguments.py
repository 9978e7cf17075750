"""Values of options, and what is wrong with them."""

from __future__ import annotations

import argparse

from qhyvit_device.interpreter import MOST_THREADS

MOST_TIME = 1e6  # seconds, minutes


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas; none is negative, and each has at most nine digits."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: whole numbers with commas, like 1,4")
    return tuple(map(int, parts))


def several_threads(text: str) -> tuple[int, ...]:
    """Counts of threads with commas."""
    found = numbers(text)
    if not 1 <= min(found) <= max(found) <= MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r}: 1 to {MOST_THREADS}, with commas")
    return found


def threads(text: str) -> int:
    """One count of threads."""
    found = several_threads(text)
    if len(found) > 1:
        raise argparse.ArgumentTypeError(f"{text!r}: one number")
    return found[0]


def none_or_more(text: str, least: int = 0) -> int:
    """A count that may be 0."""
    try:
        (found,) = numbers(text)
    except (ValueError, argparse.ArgumentTypeError):
        found = -1
    if found < least:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number, {least} or more")
    return found


def count(text: str) -> int:
    """A count of 1 or more."""
    return none_or_more(text, 1)


def time(text: str) -> float:
    """Seconds or minutes."""
    return _number(text, MOST_TIME, "a number, 0 or more")


def share(text: str) -> float:
    """A part of 1."""
    return _number(text, 1.0, "a number, 0 to 1")


def _number(text: str, most: float, words: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: {words}")
    return found
