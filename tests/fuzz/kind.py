"""What a kind of input is, and what a fuzzing run is told of a case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random

from qhyvit.registry import discover

Case = tuple[bytes, ...]  # contents of files, words of a command line: what the kind makes of them


class FindingError(AssertionError):
    """A rule that does not hold for a case."""


def must(holds: object, what: object) -> None:
    """Raise FindingError unless a rule holds."""
    if not holds:
        raise FindingError(str(what)[:2000])


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Args:
        name: of the kind.
        share: of the cases, relative to the other kinds': cheap ones get many.
        draw: makes a case in the current folder, which is one of :mod:`tests.fuzz.place`.
        run: gives a case to the program, in the current folder, which it leaves as it was. Returns the outcome in a
            word or two, raises FindingError where a rule does not hold; whatever else it raises is a finding as well.
        seconds: of a processor that a case may take.
        megabytes: that the process may grow by during a case.
    """

    name: str
    share: int
    draw: Callable[[Random], Case]
    run: Callable[[Case], str]
    seconds: float = 10.0
    megabytes: int = 128


@cache
def all_kinds() -> dict[str, Kind]:
    """Kinds by name."""
    from tests.fuzz import kinds

    return discover(kinds, "KIND", Kind)
