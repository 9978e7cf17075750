"""Shared by the benchmarks: images, and result rows with the command that made them."""

from __future__ import annotations

import argparse
import csv
import io
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit import data, files
from qhyvit.labels import labelled_images
from qhyvit.tasks import task
from qhyvit.tasks.shared.accuracy import Accuracy
from qhyvit.work import versions
from qhyvit_device.board import board
from qhyvit_device.preprocess import Preprocess, load_image, to_pixels
from qhyvit_device.statistics import Ratio

RESULTS = Path(__file__).parent / "results"
ROOT = RESULTS.parent.parent
ALL = "all"  # several sets of labelled images together
COMPARED = "mobilevitv2_075"  # the model with ImageNet weights: methods and parts are compared on it


def pixels_of(paths: Sequence[Path], shape: Sequence[int], how: Preprocess) -> np.ndarray:
    """[N, H, W, C] uint8."""
    return np.stack([to_pixels(load_image(p), shape[0], shape[1], how) for p in paths])


def random_weights(model: str, weights: Path | None) -> bool:
    """Whether a benchmark gives a model random weights: a name without a file."""
    return weights is None and ".py:" not in model


def ranked_images(folder: Path, labels: Path | None, outputs: int) -> data.Labelled:
    """Labelled images for a model with ``outputs`` classes that was trained on some of ImageNet's.

    Such a model numbers its classes in the order of ImageNet's: so are they here, where there are as many as outputs
    and one is beyond them.

    Raises:
        InputError: see :func:`qhyvit.labels.labelled_images`.
    """
    listed = data.read_labels(folder, labels)
    names, ranks = np.unique(listed.truth, return_inverse=True)
    if names[-1] < outputs or len(names) != outputs:
        return labelled_images(folder, labels, task("classify"), outputs)
    return data.Labelled(listed.paths, ranks.astype(np.int64))


def add_images(parser: argparse.ArgumentParser) -> None:
    """The options that name calibration images and labelled ones."""
    parser.add_argument("--images", type=Path, required=True, help="folder of calibration images")
    parser.add_argument("--evaluate", type=Path, nargs="+", required=True, help="labelled folders")
    parser.add_argument("--labels", type=Path, help="default: labels.csv of each labelled folder")
    parser.add_argument("--resize-mode", choices=("crop", "squash"), default="crop", help="of the labelled folders")


def ranked_sets(folders: Sequence[Path], labels: Path | None, outputs: int) -> dict[str, data.Labelled]:
    """Labelled images of each folder by its name (:func:`ranked_images`); last, of several, those of all together."""
    found = {folder.name: ranked_images(folder, labels, outputs) for folder in folders}
    if len(found) > 1:
        paths = [path for one in found.values() for path in one.paths]
        found[ALL] = data.Labelled(paths, np.concatenate([one.truth for one in found.values()]))
    return found


def model_name(model: str) -> str:
    """The name in the tables: that of the function for FILE.py:FUNCTION."""
    return model.rpartition(":")[2]


def shares(found: Accuracy) -> dict[str, str]:
    """Columns of how right a file is, and how like the reference that was counted beside it."""
    both = {"top1_percent": found.top1, "agreement_percent": found.agree or 0}
    return {name: f"{100 * number / found.images:.2f}" for name, number in both.items()}


def ratio_columns(name: str, found: Ratio) -> dict[str, str]:
    """Columns of a ratio of times: the median, and the ends of the middle half."""
    ends = {name: found.median, f"{name}_low": found.low, f"{name}_high": found.high}
    return {column: f"{value:.3f}" for column, value in ends.items()}


def beside_float(found: Accuracy, size: int, p50_ms: float, to_float: Ratio) -> dict[str, Any]:
    """Columns of a file beside the float one: how right and how like it, how large, how fast."""
    return {"images": found.images, **shares(found), "size_bytes": size, "p50_ms": f"{p50_ms:.2f}",
            **ratio_columns("to_float", to_float)}  # fmt: skip


def command_line() -> str:
    """The command that runs now, without the folders of paths (``timm/NAME`` is none): results name no machine."""
    words = [Path(w).name if "/" in w and "timm/" not in w else w for w in sys.argv[1:]]
    return f"python -m benchmarks.{Path(sys.argv[0]).stem} {shlex.join(words)}"


@cache
def commit() -> str:
    """The commit that last changed the code, with a plus where it was changed since; "" outside a repository.

    Commits of documents and results do not count, so that a run goes on behind them.
    """
    code = ["--", "pipeline", "device", "benchmarks", ":!benchmarks/results"]
    said = [subprocess.run(["git", *words, *code], capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()
            for words in (["log", "-1", "--format=%h", "--abbrev=9"], ["status", "--porcelain", "-uno"])]
    return said[0] + ("+" if said[1] else "")


def origin() -> dict[str, str]:
    """Where a row comes from: the commit, the machine's processor, the tools' versions, and the command."""
    tools = ", ".join(f"{name} {version}" for name, version in versions().items())
    return {"commit": commit(), "machine": board().processor or "", "versions": tools, "command": command_line()}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def of_all_images(row: Mapping[str, str]) -> bool:
    """Whether a row of accuracy.csv counts every image that was counted."""
    return row.get("set", "") in ("", ALL)


def have_rows(path: Path, key: Mapping[str, Any]) -> bool:
    """Whether a row with these values is there that today's commit made."""
    wanted = {**key, "commit": commit()}
    return any(all(r.get(k) == str(v) for k, v in wanted.items()) for r in read_rows(path))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], key: Sequence[str]) -> None:
    """Put rows with their :func:`origin` into a CSV, in place of those with the same ``key`` columns.

    The file appears whole.
    """
    here = origin()
    old, rows = read_rows(path), [{**row, **{k: v for k, v in here.items() if k not in row}} for row in rows]
    new = {tuple(str(r[k]) for k in key) for r in rows}
    kept = [r for r in old if tuple(str(r.get(k)) for k in key) not in new]
    columns = list(dict.fromkeys([*(c for r in rows for c in r), *(c for r in kept for c in r)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.StringIO()
    table = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows([*kept, *rows])
    files.write_text(path, stream.getvalue())
