"""Latency rows from the files that ``qhyvit bench --out`` and ``qhyvit-device bench --json`` write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qhyvit import files
from qhyvit.errors import InputError
from qhyvit.latency.fit import benches
from qhyvit.report.facts import LatencyRow


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
        return tuple(row for host, bench in benches(raw) for row in _rows(host, bench))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{path} is no bench file ({error!r}); `qhyvit-device bench BUNDLE --json FILE` makes one"
        ) from error
