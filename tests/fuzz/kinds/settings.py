"""Files of settings, changed: ``build --config``, sweeps' specs, ``preprocess.json``, latency profiles."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from random import Random
from typing import Any

from qhyvit.errors import QhyvitError
from qhyvit.sweep.spec import read_spec
from tests.fuzz.kind import Case, Kind, must
from tests.fuzz.mutate import changed, changed_document, changed_json
from tests.fuzz.programs import BUILD, REACHED, host


def toml(value: Any) -> str:
    """Plain data as inline TOML; None, which it lacks, as an empty text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return str(value)
    return json.dumps("" if value is None else value, ensure_ascii=False)


def document(value: Any) -> str:
    """A TOML file of plain data."""
    return "".join(f"{json.dumps(str(k))} = {toml(v)}\n" for k, v in value.items()) if isinstance(value, dict) else ""


def draw(rng: Random) -> Case:
    """Which file, and its content."""
    which = rng.choice(("config.toml", "sweep.toml", "preprocess.json", "latency.json"))
    if which.endswith(".toml"):
        data = Path(which).read_bytes()
        if rng.random() < 0.3:
            return which.encode(), changed(rng, data)
        return which.encode(), document(changed_json(rng, tomllib.loads(data.decode()))).encode(errors="surrogatepass")
    how = {"mode": "crop", "resize": 40, "interpolation": "bicubic"}
    data = json.dumps(how).encode() if which == "preprocess.json" else Path("b.work", "latency.json").read_bytes()
    return which.encode(), changed_document(rng, data)


def run(case: Case) -> str:
    """Read it."""
    which = case[0].decode()
    path = Path("images", which) if which == "preprocess.json" else Path(f"changed.{which}")
    path.write_bytes(case[1])
    try:
        if which == "sweep.toml":
            return f"{which} {_sweep(path)}"
        options = {"config.toml": ["--config", str(path)], "latency.json": ["--target", str(path)]}
        whole = which == "config.toml" and b"net.py:make" in case[1]
        code, said = host([*(["build"] if whole else BUILD), *options.get(which, [])])
    finally:
        path.unlink()
    must(code == 2, f"exit code {code}: {said}")
    return f"{which} {'read' if REACHED in said else 'refused'}"


def _sweep(path: Path) -> str:
    try:
        read_spec(path)
    except QhyvitError as error:
        must("\n" not in str(error), error)
        return "refused"
    return "read"


KIND = Kind("settings", 6, draw, run, seconds=20, megabytes=200)
