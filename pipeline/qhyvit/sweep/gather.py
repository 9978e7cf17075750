"""Results of a sweep in one table and one picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qhyvit import files
from qhyvit.errors import UsageError
from qhyvit.sweep.matrix import Build

CSV, PARQUET, PLOT = "results.csv", "results.parquet", "results.png"
NAMED = ("model", "method", "bits", "seed", "profile")  # what tells rows from each other
FIGURES = {"top1_percent": "top-1 %", "float_top1_percent": "float %", "agreement_percent": "agrees %"}
TOOK = ("cpu_seconds", "seconds", "peak_mib")  # what differs from run to run


def row(build: Build, result: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    value, process, method = result["value"], result["process"], build.config.method
    integer, floating = value["integer"], value["float"]
    return {
        "model": build.model.label, "method": build.method.label, "bits": method.bits, "seed": method.seed,
        "profile": build.config.target.profile, "options": json.dumps(dict(build.method.options), sort_keys=True),
        "calibration_images": value["calibration_images"], "images": integer["images"],
        "top1_percent": round(integer["top1_percent"], 2), "float_top1_percent": round(floating["top1_percent"], 2),
        "top5_percent": round(integer["top5_percent"], 2),
        "agreement_percent": round(integer["agreement_percent"], 2),
        "gained": integer["gained"], "lost": integer["lost"], "p_mcnemar": float(f"{integer['p_value']:.3g}"),
        "size_bytes": value["size_bytes"], "folds": value["folds"], "plan_sha256": value["plan_sha256"],
        "job": build.job.digest, **{name: process[name] for name in TOOK},
    }  # fmt: skip


def rows_of(builds: Sequence[Build], folder: Path) -> list[dict[str, Any]]:
    """A row for each build that has a result, in the order of the spec."""
    found = ((b, b.job.result(folder)) for b in builds)
    return [row(b, result) for b, result in found if result is not None]


def short(rows: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Columns and rows for a terminal: what tells the rows from each other, and the figures."""
    named = [c for c in NAMED if c in ("model", "method") or len({r[c] for r in rows}) > 1]
    lines = [(*(r[c] for c in named), *(f"{r[c]:.2f}" for c in FIGURES)) for r in rows]
    return (*named, *FIGURES.values()), lines


def write(rows: Sequence[dict[str, Any]], folder: Path, *, parquet: bool = False) -> list[Path]:
    """``results.csv``, ``results.png``, and ``results.parquet`` where asked for; nothing without rows."""
    if not rows:
        return []
    stream = io.StringIO()
    table = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    files.write_text(folder / CSV, stream.getvalue())
    files.write_bytes(folder / PLOT, picture(rows))
    written = [folder / CSV, folder / PLOT]
    if parquet:
        files.write_bytes(folder / PARQUET, _parquet(rows))
        written.append(folder / PARQUET)
    return written


def need_parquet() -> Any:
    """pyarrow.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(f"--parquet needs pyarrow ({error}); pip install pyarrow") from error
    return pyarrow


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    arrow = need_parquet()
    stream = io.BytesIO()
    arrow.parquet.write_table(arrow.Table.from_pylist(list(rows)), stream)
    return stream.getvalue()


def picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """PNG: one panel a model, one bar a method (bits and profile, where there are several), one dot a seed."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(r["model"] for r in rows))
    varied = [key for key in ("bits", "profile") if len({r[key] for r in rows}) > 1]
    longest = max(len({_label(r, varied) for r in rows if r["model"] == m}) for m in models)
    figure = Figure(figsize=(4.2 * len(models) + 1.2, 1.3 + 0.34 * longest))
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for axis, model in zip(panels, models, strict=True):
        _panel(axis, model, [r for r in rows if r["model"] == model], varied)
    figure.tight_layout()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


def _label(found: dict[str, Any], varied: Sequence[str]) -> str:
    more = {"bits": f"{found['bits']} bits", "profile": str(found["profile"])}
    return ", ".join([str(found["method"]), *(more[key] for key in varied)])


def _panel(axis: Any, model: str, rows: Sequence[dict[str, Any]], varied: Sequence[str]) -> None:
    by_label: dict[str, list[float]] = {}
    for found in rows:
        by_label.setdefault(_label(found, varied), []).append(found["agreement_percent"])
    for place, values in enumerate(by_label.values()):
        axis.barh(place, sum(values) / len(values), color="#a9b4c2")
        axis.plot(values, [place] * len(values), "o", color="#2a6f97", markersize=4)
    axis.set_yticks(range(len(by_label)), list(by_label))
    axis.invert_yaxis()
    axis.set_xlim(0, 102)
    axis.set_title(model, fontsize=10, loc="left")
    axis.set_xlabel("agrees with float, % of images: mean, and each seed", fontsize=8)
    axis.tick_params(labelsize=8)
