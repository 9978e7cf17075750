"""Finds the one public constant of each file in a folder: adding an op, method or family edits no list."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any, TypeVar

from qhyvit.errors import UsageError, near

T = TypeVar("T")


def discover(package: ModuleType, constant: str, kind: type[T]) -> dict[str, T]:
    """Collect ``constant`` of every module in ``package``, keyed by its ``name``.

    Modules whose name starts with ``_`` are helpers and are passed over.

    Raises:
        TypeError: a module lacks the constant, or two constants share a name.
    """
    found: dict[str, T] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        value: Any = getattr(module, constant, None)
        if not isinstance(value, kind):
            raise TypeError(f"{module.__name__} must define {constant}: {kind.__name__}")
        name = str(getattr(value, "name"))  # noqa: B009 - T has no declared attributes
        if name in found:
            raise TypeError(f"{module.__name__} registers {name!r} a second time")
        found[name] = value
    return found


def pick(table: dict[str, T], name: str, what: str) -> T:
    """Look ``name`` up, or say what there is.

    Raises:
        UsageError: no such entry.
    """
    if name not in table:
        raise UsageError(f"unknown {what} {name!r}{near(str(name), sorted(table))}")
    return table[name]
