"""Finds the one public constant of each file in a folder: adding an op, method or family edits no list.

Other packages add theirs by entry points, whose group is the name of the folder's package: ``qhyvit.ops``.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from qhyvit.errors import UsageError, near

T = TypeVar("T")
GROUPS = tuple(f"qhyvit.{folder}" for folder in ("ops", "passes", "observers", "folds", "methods", "models", "tasks",
          "targets"))


def discover(package: ModuleType, constant: str, kind: type[T]) -> dict[str, T]:
    """Collect ``constant`` of every module in ``package``, and of those that others have installed, by its ``name``.

    A folder inside it (``shared``) holds what several of its files need, and is passed over.

    Raises:
        UsageError: a module lacks the constant, two constants share a name, or an installed module cannot be imported.
    """
    found: dict[str, T] = {}
    for where, module in [*_own(package), *_installed(package.__name__)]:
        value: Any = getattr(module, constant, None)
        if not isinstance(value, kind):
            raise UsageError(f"{where} must define {constant}: {kind.__name__}, as its folder's other files do")
        name = str(getattr(value, "name"))  # noqa: B009 - T has no declared attributes
        if name in found:
            raise UsageError(f"{where} registers {name!r} a second time; give it another name")
        found[name] = value
    return found


def _own(package: ModuleType) -> Iterator[tuple[str, ModuleType]]:
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        if not info.ispkg:
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            yield module.__name__, module


def _installed(group: str) -> Iterator[tuple[str, ModuleType]]:
    """The modules that entry points of ``group`` name, with the packages that they are of."""
    for point in sorted(entry_points(group=group), key=lambda p: (p.name, p.value)):
        where = f"{point.value} (of {point.dist.name if point.dist else 'an unknown package'})"
        try:
            yield where, point.load()
        except Exception as error:  # whatever the other package's code raises
            said = f"{type(error).__name__}: {error}"
            raise UsageError(f"{where} cannot be loaded for {group} ({said}); mend or uninstall it") from error


def extensions() -> list[Path]:
    """The folders of the packages that add something, or the files of lone modules."""
    found: set[Path] = set()
    for point in (p for group in GROUPS for p in entry_points(group=group)):
        base = importlib.util.find_spec(point.module.partition(".")[0])
        if base is not None:
            places = base.submodule_search_locations or ([base.origin] if base.origin else [])
            found.update(map(Path, places))
    return sorted(found)


def pick(table: dict[str, T], name: str, what: str) -> T:
    """Look ``name`` up, or say what there is.

    Raises:
        UsageError: no such entry.
    """
    if name not in table:
        raise UsageError(f"unknown {what} {name!r}{near(str(name), sorted(table))}")
    return table[name]
