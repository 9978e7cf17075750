"""A bundle's ``manifest.json``, changed: refused in one line, or whole, and written as it was read."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from qhyvit_device import manifest
from qhyvit_device.errors import DeviceError
from tests.fuzz.kind import Case, Kind, must
from tests.fuzz.mutate import changed_document

ORIGINALS = (
    "b/manifest.json", "tasks/several/manifest.json", "tasks/segment/manifest.json", "tasks/embed/manifest.json",
    "schema1.json",
)  # fmt: skip


def draw(rng: Random) -> Case:
    """Its content."""
    return (changed_document(rng, Path(rng.choice(ORIGINALS)).read_bytes()),)


def run(case: Case) -> str:
    """Read it."""
    path = Path("changed.json")
    path.write_bytes(case[0])
    try:
        found = manifest.load(path)
    except DeviceError as error:
        must("\n" not in str(error), error)
        return "refused"
    finally:
        path.unlink()
    again = manifest.from_dict(json.loads(manifest.dumps(found)))
    must(repr(again) == repr(found), "it is not written as it was read")
    return "read"


KIND = Kind("manifests", 14, draw, run)
