"""Bundles of which one file is changed: the checksum tells; with a right checksum, the model's own facts tell."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from qhyvit_device import Model
from qhyvit_device.errors import DeviceError
from qhyvit_device.manifest import FILE_NAME
from qhyvit_device.tasks import TASKS
from tests.fuzz.kind import Case, Kind, must
from tests.fuzz.mutate import changed, changed_document, changed_png, changed_text
from tests.fuzz.programs import device

MODEL, LABELS, PICTURE = "model.tflite", "labels.txt", "test.png"
FOLDER = Path("b")
FOLDERS = ("b", "b", "tasks/multilabel", "tasks/regress", "tasks/embed", "tasks/segment", "tasks/several")


def draw(rng: Random) -> Case:
    """A file's path, its content, and whether its checksum is made right. A model's is not: see the kind models."""
    folder = Path(rng.choice(FOLDERS))
    name = rng.choice([n for n in (MODEL, LABELS, PICTURE, FILE_NAME) if (folder / n).is_file()])
    path, data = str(folder / name).encode(), (folder / name).read_bytes()
    if name == FILE_NAME:
        return path, changed_document(rng, data), b""
    if name == PICTURE and rng.random() < 0.5:
        return path, changed_png(rng, data), b"right"
    if name == LABELS and rng.random() < 0.5:
        return path, changed_text(rng, data.decode()).encode(errors="surrogatepass"), b"right"
    return path, changed(rng, data), rng.choice((b"right", b"")) if name != MODEL else b""


@contextmanager
def held(folder: Path, name: str, content: bytes, right: bool) -> Iterator[bool]:
    """The bundle with this file, and its checksum where ``right``; gives whether it is another bundle than before."""
    before = {n: (folder / n).read_bytes() for n in (name, FILE_NAME)}
    (folder / name).write_bytes(content)
    if right:
        raw = json.loads(before[FILE_NAME])
        raw["checksums"][name] = hashlib.sha256(content).hexdigest()
        (folder / FILE_NAME).write_text(json.dumps(raw))
    try:
        yield before[name] != content
    finally:
        for n, data in before.items():
            (folder / n).write_bytes(data)


def run(case: Case) -> str:
    """Load and use it."""
    path, content, right = Path(os.fsdecode(case[0])), case[1], bool(case[2])
    folder, name = (path.parent if path.parent.name else FOLDER), path.name
    with held(folder, name, content, right) as other:
        try:
            model = Model.load(folder)
        except DeviceError as error:
            must("\n" not in str(error), error)
            must(other, f"the bundle as it was is refused: {error}")
            must(device(["run", str(folder), "images/0.png"]) == 2, "run takes what Model.load refuses")
            return f"{name} refused"
        must(right or name == FILE_NAME or not other, f"{name} is taken with a wrong checksum")
        must(len(model.labels) == model.manifest.classes or model.manifest.labels_file is None, "labels")
        for command in {TASKS[model.manifest.task].command, "run"}:
            code = device([command, str(folder), "images/0.png"])
            must(code == 0, f"{command} ends with {code}")
        return f"{name} taken"


KIND = Kind("bundles", 8, draw, run)
