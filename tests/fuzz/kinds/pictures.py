"""Pictures of every format of the allow-list, changed: read twice alike within bounds of memory, or one line."""

from __future__ import annotations

import io
from pathlib import Path
from random import Random

import numpy as np

from qhyvit_device.errors import InputError
from qhyvit_device.pictures import DRAFT_BYTES, decoded
from qhyvit_device.preprocess import Preprocess, to_pixels
from tests.fuzz.kind import Case, Kind, must
from tests.fuzz.mutate import PNG, changed, changed_png

MODES = tuple(Preprocess(mode, 9, filter) for mode in ("crop", "squash") for filter in ("bilinear", "bicubic"))


def draw(rng: Random) -> Case:
    """One picture."""
    originals = [path.read_bytes() for path in sorted(Path("pictures").iterdir())]
    data = rng.choice(originals)
    if data.startswith(PNG) and rng.random() < 0.6:
        return (changed_png(rng, data),)
    others = [other for other in originals if other[:3] == data[:3]]
    return (changed(rng, data, others),)


def _pixels(data: bytes) -> tuple[list[np.ndarray], str]:
    try:
        image = decoded(io.BytesIO(data), DRAFT_BYTES)
        return [to_pixels(image, 8, 8, how) for how in MODES], ""
    except InputError as error:
        return [], str(error)


def run(case: Case) -> str:
    """Read it."""
    found, error = _pixels(case[0])
    must("\n" not in error, error)
    if not found:
        return "refused"
    must(all(x.shape == (8, 8, 3) and x.dtype == np.uint8 for x in found), [x.shape for x in found])
    again, _ = _pixels(case[0])
    must(again and all(map(np.array_equal, found, again)), "a second reading gives other pixels")
    return "read"


KIND = Kind("pictures", 30, draw, run, megabytes=80)
