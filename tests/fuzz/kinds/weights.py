"""Weights files of every form, changed, given to a build: they are loaded, or refused in one line."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random

from tests.fuzz.kind import Case, Kind, must
from tests.fuzz.mutate import changed, changed_json, changed_zip
from tests.fuzz.programs import BUILD, REACHED, host

SUFFIXES = (b".pth", b".safetensors", b".bin", b".pt", b"")


def draw(rng: Random) -> Case:
    """A suffix, and the file's content."""
    path = rng.choice(sorted(Path("weights").iterdir()))
    data = path.read_bytes()
    suffix = rng.choice(SUFFIXES) if rng.random() < 0.2 else path.suffix.encode()
    if path.suffix == ".safetensors" and rng.random() < 0.6:
        (length,) = struct.unpack_from("<Q", data)
        header = json.dumps(changed_json(rng, json.loads(data[8 : 8 + length]))).encode()
        return suffix, struct.pack("<Q", len(header)) + header + data[8 + length :]
    if data.startswith(b"PK") and rng.random() < 0.6:
        return suffix, changed_zip(rng, data)
    return suffix, changed(rng, data)


def run(case: Case) -> str:
    """Build with it, as far as the exporter."""
    path = Path(f"w{case[0].decode()}")
    path.write_bytes(case[1])
    try:
        code, said = host([*BUILD, "--weights", str(path)])
    finally:
        path.unlink()
    must(code == 2, f"exit code {code}: {said}")
    return "loaded" if REACHED in said else "refused"


KIND = Kind("weights", 6, draw, run, seconds=20, megabytes=200)
