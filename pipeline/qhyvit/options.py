"""Options with a type and bounds: one description for the command line, a sweep's file and the Python interface."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from qhyvit.errors import UsageError

SWITCH = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}


@dataclass(frozen=True)
class Option:
    """One option. Its type is that of its default: a switch (bool), int, float or text.

    Args:
        default: its value where none is given.
        help: what it does, in a line.
        low, high: bounds of a number, both allowed; None: none.
        choices: the texts that are allowed; empty: any.
        several: a text may name several of the choices, with commas; ``alone`` are those that stand alone.
    """

    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    several: bool = False
    alone: tuple[str, ...] = ()

    def parse(self, what: str, given: Any) -> Any:
        """The value of the option's type that ``given`` (a value, or how one is written) means.

        Raises:
            UsageError: it means none, or one that is not allowed; with ``what`` and what is allowed.
        """
        found = self._found(given)
        if found is None:
            raise UsageError(f"{what}={_shown(given)}: must be {self.allowed}")
        return found

    def _found(self, given: Any) -> Any:
        kind = type(self.default)
        if kind is bool:
            if isinstance(given, str):
                return SWITCH.get(given.strip().lower())
            return bool(given) if isinstance(given, int) and given in (0, 1) else None
        if kind is str:
            return self._text(given)
        number = _number(given, kind)
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return number if number is not None and low <= number <= high else None

    def _text(self, given: Any) -> str | None:
        if not isinstance(given, str):
            return None
        if not self.choices:
            return given
        parts = [part.strip() for part in given.split(",")] if self.several else [given]
        fits = all(part in self.choices for part in parts) and len(set(parts)) == len(parts)
        return ",".join(parts) if (len(parts) == 1 and given in self.alone) or fits else None

    def to_json(self) -> dict[str, Any]:
        """Plain data: the default, what is allowed, what it does."""
        return {"default": self.default, "allowed": self.allowed, "help": self.help}

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        kind = type(self.default)
        if kind is bool:
            return "true or false (also on and off, yes and no, 1 and 0)"
        if kind is str:
            words = ", ".join((*self.alone, *self.choices))
            return f"{words} (several with commas)" if self.several else f"one of {words}" if words else "a text"
        word = "a whole number" if kind is int else "a number"
        low, high = (None if v is None else f"{v:g}" if abs(v) < 1e6 else str(v) for v in (self.low, self.high))
        if low is None:
            return word
        return f"{word}, {low} or more" if high is None else f"{word} from {low} to {high}"


def _number(given: Any, kind: type) -> Any:
    """A finite number of the kind, None: it is no such number."""
    if isinstance(given, str):
        text = given.strip()
        pattern = r"[+-]?[0-9]{1,18}" if kind is int else r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
        if not re.fullmatch(pattern, text):
            return None
        given = kind(text)
    if isinstance(given, bool) or not isinstance(given, Integral if kind is int else Real):
        return None
    try:
        number = kind(given)
    except OverflowError:
        return None
    return number if kind is int or math.isfinite(number) else None


def _shown(given: Any) -> str:
    try:
        text = given if isinstance(given, str) else repr(given)
    except ValueError:  # a number of thousands of digits
        text = type(given).__name__
    return " ".join((text if len(text) <= 60 else f"{text[:57]}...").split())


def complete(options: Mapping[str, Option], given: Mapping[str, Any], whose: str) -> dict[str, Any]:
    """``given`` in the types of ``options``, over their defaults.

    Raises:
        UsageError: no mapping, a name that is none of ``options``, or a value that is not allowed.
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"options of {whose} are names with values, got {_shown(given)}")
    unknown = sorted(str(name) for name in given if name not in options)
    if unknown:
        known = ", ".join(f"{k}={o.default}" for k, o in options.items())
        raise UsageError(f"{whose} has no option {unknown[0]!r}; it has {known or 'none'}")
    found = {name: options[name].parse(f"option {name}", value) for name, value in given.items()}
    return {**{name: option.default for name, option in options.items()}, **found}


SEED = Option(0, "of all that is drawn", low=0, high=2**32 - 1)
COUNT = Option(128, "calibration images", low=1, high=10**6)
BITS = Option(8, "of weights and activations; fewer than 8 is for studies", low=4, high=8)
