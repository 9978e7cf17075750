"""``labels.csv`` of a folder of images and ``names.txt`` of classes, changed: read, or one line that names the row."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np

from qhyvit import bundle, data
from qhyvit.errors import QhyvitError
from qhyvit.tasks.shared.score import Truth
from tests.fuzz.kind import Case, Kind, must
from tests.fuzz.mutate import ODD, changed

CELLS = (
    "0.png", "1.png", "no.png", "0", "1", "9", "00", "+1", "1.0", "\u0663", "", " 0 ", '"', "'", "\ufeff0", "a,b",
    "1e3",
)  # fmt: skip


def draw(rng: Random) -> Case:
    """Which of the two, and its content."""
    if rng.random() < 0.3:
        return b"names", changed(rng, Path("names.txt").read_bytes())
    if rng.random() < 0.4:
        return b"labels", changed(rng, Path("images", "labels.csv").read_bytes())
    odd = [str(value) for value in ODD if not isinstance(value, int)]
    rows = [["file", "class_index", *(["more"] if rng.random() < 0.3 else [])]]
    for _ in range(rng.randint(0, 5)):
        row = [rng.choice(("0.png", "1.png")), rng.choice(("0", "1", "2"))]
        if rng.random() < 0.4:
            row[rng.randrange(2)] = rng.choice((*CELLS, *odd))
        rows.append(row[: rng.choice((2, 2, 2, 1))] + [rng.choice(CELLS)] * rng.choice((0, 0, 0, 1)))
    if rng.random() < 0.2:
        rng.shuffle(rows)
    text = rng.choice(("\n", "\n", "\r\n", "\r")).join(rng.choice((",", ",", ",", ";")).join(row) for row in rows)
    start = rng.choice((b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"))
    return b"labels", start + text.encode(rng.choice(("utf-8", "utf-8", "utf-16", "latin-1")), errors="replace")


def run(case: Case) -> str:
    """Read it."""
    path = Path("changed.csv")
    path.write_bytes(case[1])
    try:
        if case[0] == b"names":
            names = bundle.read_label_names(path)
            must(all(isinstance(name, str) and "\n" not in name for name in names), names)
            return "names read"
        truths = (Truth.CLASS, Truth.VALUES)
        for truth in truths if len(case[1]) % 2 else reversed(truths):  # the first that is refused ends the case
            found = data.read_labels(Path("images"), path, truth)
            must(len(found.paths) == len(found.truth) and np.isfinite(found.truth).all(), found)
            must(truth is Truth.VALUES or (found.truth >= 0).all(), found)
            must(all(p.is_file() for p in found.paths), found.paths)
        return "labels read"
    except QhyvitError as error:
        must("\n" not in str(error), error)
        must(str(path) in str(error), f"{error} names no file")
        return f"{case[0].decode()} refused"
    finally:
        path.unlink()


KIND = Kind("labels", 14, draw, run)
