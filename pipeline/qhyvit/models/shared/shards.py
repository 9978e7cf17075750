"""Weights that lie in several files, which an index names: ``model.safetensors.index.json`` and the like."""

from __future__ import annotations

import json
from pathlib import Path

from qhyvit import files
from qhyvit.errors import InputError

INDEX = ".index.json"
MAP = "weight_map"  # tensor -> file


def shards_of(path: Path) -> dict[str, Path]:
    """The file of each tensor that an index names; empty where ``path`` is no index.

    Raises:
        InputError: the index is damaged, or names files that are not beside it.
    """
    if not path.name.endswith(INDEX):
        return {}
    text = files.read_text(path, "weights index")
    try:
        named = json.loads(text)[MAP]
        found = {str(tensor): str(file) for tensor, file in named.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"weights index {path} is damaged: it has no {MAP} of tensors and files") from error
    for name in set(found.values()):
        if Path(name).name != name:
            raise InputError(f"weights index {path} names {name!r}, which is no file beside it")
    missing = sorted(name for name in set(found.values()) if not (path.parent / name).is_file())
    if missing:
        raise InputError(f"weights index {path} names files that are not beside it: {', '.join(missing[:3])}")
    return {tensor: path.parent / name for tensor, name in found.items()}


def weights_digest(path: Path) -> str:
    """Hash of a weights file; of an index with all files that it names."""
    own = files.sha256(files.read_bytes(path, "weights file"))
    parts = sorted(set(shards_of(path).values()))
    if not parts:
        return own
    return files.sha256("".join([own, *(files.sha256(files.read_bytes(p, "weights file")) for p in parts)]).encode())
