"""Latency rows from the files that ``qhyvit bench --out`` and ``qhyvit-device bench --json`` write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qhyvit import files
from qhyvit.errors import InputError
from qhyvit.report.facts import LatencyRow


def _benches(raw: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(host or "", bench) of one device's file, or of several boards'."""
    if "models" in raw:
        yield "", raw
    elif "benches" in raw:
        yield from (("", bench) for bench in raw["benches"])
    else:
        for host, found in raw.items():
            yield from ((host, bench) for bench in found["benches"])


def _rows(host: str, bench: dict[str, Any]) -> Iterator[LatencyRow]:
    board = bench["board"]["board"] or bench["board"]["processor"]
    base = bench["models"][0]["model"]
    for model in bench["models"]:
        ratio, x = model.get(f"ratio_to_{base}"), model["inference"]
        yield LatencyRow(
            f"{host} ({board})" if host else str(board), int(bench["settings"]["threads"]), str(model["model"]),
            float(x["p50"]), float(x["p95"]), None if ratio is None else float(ratio["median"]),
            tuple(str(w) for w in bench["warnings"]),
        )  # fmt: skip


def read(path: Path) -> tuple[LatencyRow, ...]:
    """All rows of a bench file.

    Raises:
        InputError: unreadable, or no such file.
    """
    try:
        raw = json.loads(files.read_bytes(path, "bench file"))
        return tuple(row for host, bench in _benches(raw) for row in _rows(host, bench))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{path} is no bench file ({error!r}); `qhyvit-device bench BUNDLE --json FILE` makes one"
        ) from error
