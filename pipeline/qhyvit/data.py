"""Image folders as calibration and evaluation arrays, through the device's own preprocessing; content hashes."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from qhyvit.errors import InputError

T = TypeVar("T")


def hash_files(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file: equal pictures are found whatever their names.

    Raises:
        InputError: one cannot be read.
    """
    try:
        return [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]
    except OSError as error:
        raise InputError(f"cannot read image {error.filename}: {error.strerror}") from error


def combined_hash(hashes: Sequence[str]) -> str:
    """One hash of a set of images, whatever their order."""
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def choose(paths: Sequence[T], count: int, seed: int) -> list[T]:
    """``count`` of ``paths`` drawn by ``seed``, in order; all of them if there are no more."""
    if len(paths) <= count:
        return list(paths)
    picked = np.random.default_rng(seed).choice(len(paths), size=count, replace=False)
    return [paths[i] for i in sorted(picked)]


@dataclass(frozen=True)
class Labelled:
    """Images with class indices, as ``labels.csv`` (columns file, class_index) beside them says."""

    paths: list[Path]
    classes: np.ndarray  # [N] int64


def read_labels(folder: Path, labels: Path | None = None) -> Labelled:
    """Read ``labels.csv`` of a folder (or the file named); paths in it are relative to the csv.

    Raises:
        InputError: no such file, columns missing, an image missing, a class index that is no number.
    """
    source = labels or folder / "labels.csv"
    if not folder.is_dir():
        raise InputError(f"image folder {folder} does not exist")
    try:
        with source.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise InputError(f"cannot read labels {source}: {error.strerror}; name them with --labels") from error
    if not rows or not {"file", "class_index"} <= set(rows[0]):
        raise InputError(f"labels {source} must have the columns file and class_index")
    paths = [folder / row["file"] for row in rows]
    missing = [p for p in paths if not p.is_file()]
    if missing:
        raise InputError(f"labels {source} name {len(missing)} images that are not there, first {missing[0].name}")
    try:
        classes = np.array([int(row["class_index"]) for row in rows], np.int64)
    except ValueError as error:
        raise InputError(f"labels {source}: class_index must be a number: {error}") from error
    return Labelled(paths, classes)
