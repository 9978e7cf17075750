"""A finding's case made smaller while it stays the same finding."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.fuzz.kind import Case

MOST_TRIES = 150
MOST_SECONDS = 60.0


def smaller(case: Case, stays: Callable[[Case], bool]) -> Case:
    """The case with pieces of its parts left out, largest first, as long as ``stays`` says so.

    Args:
        case: parts of a finding.
        stays: whether a case is the same finding.
    """
    until, tries = time.monotonic() + MOST_SECONDS, 0
    for number in range(len(case)):
        piece = len(case[number])
        while piece:
            at = 0
            while at < len(case[number]):
                tries += 1
                if tries > MOST_TRIES or time.monotonic() > until:
                    return case
                part = case[number][:at] + case[number][at + piece :]
                other = (*case[:number], part, *case[number + 1 :])
                if stays(other):
                    case = other
                else:
                    at += piece
            piece //= 2
    return case
