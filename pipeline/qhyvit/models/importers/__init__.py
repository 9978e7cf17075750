"""Models that lie in files already, one kind a file with one constant ``IMPORTER``."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from qhyvit.models.shared.importer import Importer
from qhyvit.registry import discover


@cache
def all_importers() -> dict[str, Importer]:
    """Every kind of file by its ending; :data:`qhyvit.files.MODEL_FILES` lists the same."""
    return discover(sys.modules[__name__], "IMPORTER", Importer)


def importer_of(path: Path) -> Importer:
    """What opens such a file."""
    return all_importers()[path.suffix.removeprefix(".")]
