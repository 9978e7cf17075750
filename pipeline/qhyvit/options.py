"""Settings as frozen dataclasses: fields with a type, bounds, a unit and a sentence, that parse what is written.

One description serves the command line, its help, TOML files and the Python interface.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

from qhyvit.errors import UsageError, near

SWITCH = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}
KINDS = {int: "a whole number", float: "a number", Path: "a path", dict: "names with values", str: "a text"}


@dataclass(frozen=True)
class Option:
    """What one field of :class:`Settings` may be.

    Args:
        default: its value where none is given; MISSING: it is needed.
        help: what it does, in a line.
        low, high: bounds of a number, both allowed; None: none.
        unit: of the number.
        choices: the texts that are allowed; empty: any.
        joined: a text may name several of the choices, with commas; ``alone`` are those that stand alone.
        flag: on the command line, where that is not the field's name.
        read: what a value of another form means, None: nothing that is allowed; ``form`` says in words what it may be.
        kind: type of the value, or of each where ``many`` are listed; ``optional``: None is one. From the annotation.
    """

    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    joined: bool = False
    alone: tuple[str, ...] = ()
    flag: str = ""
    read: Callable[[Any], Any] | None = None
    form: str = ""
    kind: type = str
    optional: bool = False
    many: bool = False

    def parse(self, what: str, given: Any) -> Any:
        """The value of the option's type that ``given`` (a value, or how one is written) means.

        Raises:
            UsageError: it means none, or one that is not allowed; with ``what`` and what is allowed.
        """
        if given is None and self.optional:
            return None
        return self._list(what, given) if self.many else self._one(what, given)

    def _list(self, what: str, given: Any) -> tuple[Any, ...]:
        if not isinstance(given, list | tuple):
            raise UsageError(f"{what} must be a list, got {_shown(given)}")
        if not given:
            raise UsageError(f"{what} is an empty list: there is nothing to run")
        found = tuple(self._one(f"{what} {i}", value) for i, value in enumerate(given, 1))
        for i, value in enumerate(found):
            if value in found[:i]:
                raise UsageError(f"{what} has {_shown(given[i])} twice")
        return found

    def _one(self, what: str, given: Any) -> Any:
        if issubclass(self.kind, Settings):
            named = {"name": given} if isinstance(given, str) else given
            return given if isinstance(given, self.kind) else self.kind.parse(named, what)
        found = self._found(given)
        if found is None:
            raise UsageError(f"option {what}={_shown(given)}: must be {self.allowed}")
        return found

    def _found(self, given: Any) -> Any:
        if self.read is not None:
            return self.read(given)
        if self.kind is bool:
            if isinstance(given, str):
                return SWITCH.get(given.strip().lower())
            return bool(given) if isinstance(given, int) and given in (0, 1) else None
        if self.kind is dict:
            return dict(given) if isinstance(given, Mapping) else None
        if self.kind is Path:
            fits = isinstance(given, str | Path) and given != "" and "\0" not in str(given)
            return Path(given) if fits else None
        if self.kind is str:
            return self._text(given)
        number = _number(given, self.kind)
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return number if number is not None and low <= number <= high else None

    def _text(self, given: Any) -> str | None:
        if not isinstance(given, str):
            return None
        if not self.choices:
            return given
        parts = [part.strip() for part in given.split(",")] if self.joined else [given]
        fits = all(part in self.choices for part in parts) and len(set(parts)) == len(parts)
        return ",".join(parts) if (len(parts) == 1 and given in self.alone) or fits else None

    def to_json(self) -> dict[str, Any]:
        """Plain data: the default, what is allowed, what it does."""
        return {"default": self.default, "allowed": self.allowed, "help": self.help}

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        if self.form:
            return self.form
        if self.kind is bool:
            return "true or false (also on and off, yes and no, 1 and 0)"
        if self.choices:
            words = ", ".join((*self.alone, *self.choices))
            return f"{words} (several with commas)" if self.joined else f"one of {words}"
        word, unit = KINDS[self.kind], f" {self.unit}" if self.unit else ""
        low, high = (None if v is None else f"{v:.15g}" for v in (self.low, self.high))
        if low is None:
            return word + unit
        return f"{word}, {low}{unit} or more" if high is None else f"{word} from {low} to {high}{unit}"


def setting(default: Any, help: str, **about: Any) -> Any:
    """A field of :class:`Settings`; ``about`` as :class:`Option` has it. MISSING: it is needed; a type: made anew."""
    metadata = {"option": Option(default, help, **about)}
    if isinstance(default, dict | type):
        return field(default_factory=default if isinstance(default, type) else dict, metadata=metadata)
    return field(default=default, metadata=metadata)


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


def numbers(given: Any) -> tuple[float, ...] | None:
    """A number or several: a list, or a text with commas; None: it is none of these."""
    parts = given.split(",") if isinstance(given, str) else given if isinstance(given, list | tuple) else [given]
    found = tuple(_number(part, float) for part in parts)
    return found if found and None not in found else None


def options_of(settings: type[Settings]) -> Mapping[str, Option]:
    """What each field may be, by its name."""
    hints, found = get_type_hints(settings), {}
    for about in (f for f in fields(settings) if "option" in f.metadata):
        named = [kind for kind in get_args(hints[about.name]) or (hints[about.name],) if kind is not NoneType]
        many, whole = (get_origin(hints[about.name]) is form for form in (tuple, Mapping))
        kind = tuple if about.metadata["option"].read is not None else dict if whole else named[0]
        optional = NoneType in get_args(hints[about.name])
        found[about.name] = replace(about.metadata["option"], kind=kind, optional=optional, many=many)
    return found


@dataclass(frozen=True)
class Settings:
    """A frozen dataclass whose fields are made by :func:`setting`; however one is made, its values are checked.

    Raises:
        UsageError: a value is not allowed.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {}  # names of earlier releases, and what to write now

    def __post_init__(self) -> None:
        for name, option in options_of(type(self)).items():
            object.__setattr__(self, name, option.parse(name, getattr(self, name)))

    @classmethod
    def parse(cls, given: Any, whose: str) -> Self:
        """What names with values mean; ``whose`` they are, for messages.

        Raises:
            UsageError: no mapping, a name that is none of the fields, one that is missing, a value that is not allowed.
        """
        known = options_of(cls)
        if not isinstance(given, Mapping):
            raise UsageError(f"options of {whose} are names with values, got {_shown(given)}")
        for name in given:
            if name in cls.RENAMED:
                raise UsageError(f"{whose}: {name} is no option any more: {cls.RENAMED[name]}")
            if name not in known:
                raise UsageError(f"{whose} has no option {_shown(str(name))!r}{near(str(name), known)}")
        for name, option in known.items():
            if option.default is MISSING and name not in given:
                raise UsageError(f"{whose} needs {name!r}")
        try:
            return cls(**given)
        except UsageError as error:
            raise UsageError(f"{whose}: {error}") from error

    def to_json(self, path: Callable[[Path], str] = str) -> dict[str, Any]:
        """Plain data by name; ``path`` says how a path is written."""
        return {name: _plain(getattr(self, name), path) for name in options_of(type(self))}


def _plain(value: Any, path: Callable[[Path], str]) -> Any:
    if isinstance(value, Settings):
        return value.to_json(path)
    if isinstance(value, tuple):
        return [_plain(v, path) for v in value]
    return path(value) if isinstance(value, Path) else value
