"""Models that lie in files already, one kind a file with one constant ``IMPORTER``."""

from __future__ import annotations

import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from qhyvit import files
from qhyvit.models.shared.importer import Importer
from qhyvit.registry import discover


@cache
def all_importers() -> dict[str, Importer]:
    """Every kind of file by its ending; :data:`qhyvit.files.MODEL_FILES` lists the same."""
    return discover(sys.modules[__name__], "IMPORTER", Importer)


def identity(model: str) -> dict[str, str]:
    """What a model that lies in files depends on: the hash of each file, and the versions of what reads them.

    Empty for other models, which are names, factories or modules.

    Raises:
        InputError: a file cannot be read.
    """
    if not files.is_model_file(model):
        return {}
    importer = importer_of(Path(model))
    found = {p.name: files.sha256(files.read_bytes(p, "model file")) for p in importer.files(Path(model))}
    return found | {tool: metadata.version(tool) for tool in importer.tools}


def importer_of(path: Path) -> Importer:
    """What opens such a file."""
    return all_importers()[path.suffix.removeprefix(".")]
