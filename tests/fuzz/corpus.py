"""Cases that were findings, kept as JSON: ``corpus/`` holds those that are mended, which every test run tries again."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.kind import Case

FOLDER = Path(__file__).parent / "corpus"


def packed(kind: str, outcome: str, case: Case, **more: Any) -> dict[str, Any]:
    """Plain data of a case; parts that are ASCII stay readable."""
    parts = [p.decode() if p.isascii() else {"base64": base64.b64encode(p).decode()} for p in case]
    return {"kind": kind, "outcome": outcome, "case": parts, **more}


def unpacked(raw: dict[str, Any]) -> Case:
    """The case of plain data."""
    return tuple(p.encode() if isinstance(p, str) else base64.b64decode(p["base64"]) for p in raw["case"])


def write(folder: Path, raw: dict[str, Any]) -> Path:
    """Write a case into a folder; its name comes from its content."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps([raw["kind"], raw["case"]]).encode()).hexdigest()[:10]
    path = folder / f"{raw['kind'].replace(' ', '_')}-{digest}.json"
    path.write_text(json.dumps(raw, indent=1) + "\n")
    return path


def kept(folder: Path = FOLDER) -> Iterator[tuple[Path, str, Case]]:
    """(file, kind, case) of each."""
    for path in sorted(folder.glob("*.json")):
        raw = json.loads(path.read_text())
        yield path, raw["kind"], unpacked(raw)
