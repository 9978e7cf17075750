"""Finished pieces of a long work, kept in a folder so that a stopped run goes on from the last one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit import files
from qhyvit.errors import InputError

KEY = "key.txt"


@dataclass(frozen=True)
class Piece:
    """JSON facts and named arrays."""

    facts: Any
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Store:
    """Pieces by name; without a folder nothing is kept."""

    folder: Path | None = None

    def open(self, key: str) -> None:
        """Start or go on; pieces of another ``key`` (other images, options, version) are thrown away."""
        if self.folder is None:
            return
        mark = self.folder / KEY
        if not mark.is_file() or mark.read_text(errors="replace") != key:
            self.close()
            files.write_text(mark, key)

    def get(self, name: str) -> Piece | None:
        """What was kept under ``name``; None if nothing, or nothing readable, is there."""
        path = None if self.folder is None else self.folder / f"{name}.npz"
        if path is None or not path.is_file():
            return None
        try:
            arrays = files.unpack_arrays(path.read_bytes(), path.name)
            return Piece(json.loads(str(arrays.pop("facts"))), arrays)
        except (InputError, KeyError, json.JSONDecodeError):
            return None

    def put(self, name: str, facts: Any, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Keep a piece."""
        if self.folder is not None:
            packed = files.pack_arrays({"facts": np.array(json.dumps(facts)), **(arrays or {})})
            files.write_bytes(self.folder / f"{name}.npz", packed)

    def close(self) -> None:
        """Remove the folder: the work is done."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
