"""Shared by the benchmarks: logits of any ``.tflite``, and result rows with the command that made them."""

from __future__ import annotations

import csv
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit import data, files
from qhyvit.errors import InputError
from qhyvit_device.preprocess import Preprocess, load_image, normalize, quantize, to_pixels
from qhyvit_device.runner import TfliteFile

RESULTS = Path(__file__).parent / "results"
COMPARED = "mobilevitv2_075"  # the model with ImageNet weights: methods and parts are compared on it


def pixels_of(paths: Sequence[Path], size: int, how: Preprocess) -> np.ndarray:
    """[N, size, size, 3] uint8."""
    return np.stack([to_pixels(load_image(p), size, size, how) for p in paths])


def labelled_images(folder: Path, labels: Path | None, outputs: int) -> data.Labelled:
    """Images of a labelled folder for a model with ``outputs`` classes.

    A model that was trained on some of ImageNet's classes numbers them in their order: so are they here, where there
    are as many as outputs and an index is beyond them.

    Raises:
        InputError: see :func:`qhyvit.data.read_labels`; labels beyond the model's outputs.
    """
    listed = data.read_labels(folder, labels)
    names, ranks = np.unique(listed.classes, return_inverse=True)
    if names[-1] < outputs:
        return listed
    if len(names) != outputs:
        raise InputError(f"labels of {folder} go to {names[-1]}; the model has {outputs} classes")
    return data.Labelled(listed.paths, ranks.astype(np.int64))


def feed_of(file: TfliteFile, pixels: np.ndarray, how: Preprocess) -> np.ndarray:
    """What ``file`` takes for one image [H, W, 3]: float or codes, NHWC or NCHW."""
    scale, zero_point = file.input["quantization"]
    name = np.dtype(file.input["dtype"]).name
    floating = name.startswith("float")
    x = normalize(pixels, how) if floating else quantize(pixels, how, float(scale), int(zero_point), name)
    return x.transpose(2, 0, 1) if tuple(file.input["shape"])[1] == 3 else x


def logits_of(data: bytes, pixels: Iterable[np.ndarray], how: Preprocess) -> np.ndarray:
    """Float logits [N, classes] of the file as the interpreter runs it."""
    file = TfliteFile(data)
    scale, zero_point = file.output["quantization"]
    codes = np.stack([file.run(feed_of(file, p, how)) for p in pixels]).astype(np.float64)
    floating = np.dtype(file.output["dtype"]).name.startswith("float")
    return codes if floating else (codes - zero_point) * scale


def model_name(model: str) -> str:
    """The name in the tables: that of the function for FILE.py:FUNCTION."""
    return model.rpartition(":")[2]


def command_line() -> str:
    """The command that runs now, with the folders of paths left out: results name no machine."""
    words = [Path(w).name if "/" in w else w for w in sys.argv[1:]]
    return f"python -m benchmarks.{Path(sys.argv[0]).stem} {shlex.join(words)}"


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def have_rows(path: Path, key: Mapping[str, Any]) -> bool:
    """Whether a row with these values is there."""
    return any(all(r.get(k) == str(v) for k, v in key.items()) for r in read_rows(path))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], key: Sequence[str]) -> None:
    """Put rows into a CSV, in place of those with the same ``key`` columns; the file appears whole."""
    old = read_rows(path)
    new = {tuple(str(r[k]) for k in key) for r in rows}
    kept = [r for r in old if tuple(str(r.get(k)) for k in key) not in new]
    columns = list(dict.fromkeys([*(c for r in rows for c in r), *(c for r in kept for c in r)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [columns, *([str(r.get(c, "")) for c in columns] for r in [*kept, *rows])]
    text = "".join(",".join(_quoted(v) for v in line) + "\n" for line in lines)
    files.write_text(path, text)


def _quoted(value: str) -> str:
    return f'"{value}"' if "," in value else value
