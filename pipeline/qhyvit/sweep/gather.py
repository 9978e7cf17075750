"""Results of a sweep in one table and one picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qhyvit import files
from qhyvit.config import W4A8
from qhyvit.errors import UsageError
from qhyvit.evaluation import shown
from qhyvit.sweep.matrix import Build
from qhyvit.tasks import task as find_task

CSV, PARQUET, PLOT = "results.csv", "results.parquet", "results.png"
NAMED = ("model", "method", "bits", "seed", "target", "profile")  # what tells rows from each other
TOOK = ("cpu_seconds", "seconds", "peak_mib")  # what differs from run to run


def row(build: Build, result: dict[str, Any]) -> dict[str, Any]:
    """One line of the table; ``each``: see :class:`qhyvit.evaluation.Evaluation`."""
    value, process, method = result["value"], result["process"], build.config.method
    figures, floating = value["integer"] or {}, value["float"] or {}
    test = value["paired"] or {"gained": "", "lost": "", "p_value": ""}
    return {
        "model": build.model.label, "method": build.method.label, "bits": method.bits, "seed": method.seed,
        "target": build.config.target.name, "profile": build.config.target.found.profile,
        "options": json.dumps(dict(build.method.options), sort_keys=True),
        "calibration_images": value["calibration_images"], "images": value["images"], "task": value["task"],
        **{name: round(figure, 4) for name, figure in figures.items()},
        **{f"float_{name}": round(figure, 4) for name, figure in floating.items()},
        "agreement": round(value["alike"]["reading"], 4),
        "each": {name: round(reading, 4) for name, reading in value["alike"]["each"].items()},
        "gained": test["gained"], "lost": test["lost"], "p_value": test["p_value"],
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
    tasks = [find_task(name) for name in dict.fromkeys(r["task"] for r in rows)]
    titles = {c: title for t in tasks for c, title in list(t.columns.items())[:1]}
    titles = {**titles, **{f"float_{c}": "float" for c in titles}}
    reading = tasks[0].reading if len(tasks) == 1 else "as float"
    lines = [
        (*(r[c] for c in named), *(shown(c, r[c]) if c in r else "" for c in titles),
         shown(reading, r["agreement"]) + find_task(r["task"]).worst_of(r["each"])) for r in rows
    ]  # fmt: skip
    return (*named, *titles.values(), reading), lines


def write(rows: Sequence[dict[str, Any]], folder: Path, *, parquet: bool = False) -> list[Path]:
    """``results.csv``, ``results.png``, and ``results.parquet`` where asked for; nothing without rows."""
    if not rows:
        return []
    stream = io.StringIO()
    flat = [{**r, "each": json.dumps(r["each"]) if r["each"] else ""} for r in rows]  # one cell
    columns = list(dict.fromkeys(name for found in rows for name in found))  # tasks have columns of their own
    table = csv.DictWriter(stream, columns, lineterminator="\n", restval="")
    table.writeheader()
    table.writerows(flat)
    files.write_text(folder / CSV, stream.getvalue())
    files.write_bytes(folder / PLOT, picture(rows))
    written = [folder / CSV, folder / PLOT]
    if parquet:
        files.write_bytes(folder / PARQUET, _parquet(flat))
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
    if len({type(r["bits"]) for r in rows}) > 1:  # a column has one type
        rows = [{**r, "bits": str(r["bits"])} for r in rows]
    arrow.parquet.write_table(arrow.Table.from_pylist(list(rows)), stream)
    return stream.getvalue()


def picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """PNG: one panel a model, one bar a method (bits, target and profile, where there are several), one dot a seed."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(r["model"] for r in rows))
    varied = [key for key in ("bits", "target", "profile") if len({r[key] for r in rows}) > 1]
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
    bits = W4A8 if found["bits"] == W4A8 else f"{found['bits']} bits"
    more = {"bits": bits, "target": str(found["target"]), "profile": str(found["profile"])}
    return ", ".join([str(found["method"]), *(more[key] for key in varied)])


def _panel(axis: Any, model: str, rows: Sequence[dict[str, Any]], varied: Sequence[str]) -> None:
    by_label: dict[str, list[float]] = {}
    for found in rows:
        by_label.setdefault(_label(found, varied), []).append(found["agreement"])
    for place, values in enumerate(by_label.values()):
        axis.barh(place, sum(values) / len(values), color="#a9b4c2")
        axis.plot(values, [place] * len(values), "o", color="#2a6f97", markersize=4)
    axis.set_yticks(range(len(by_label)), list(by_label))
    axis.invert_yaxis()
    title = find_task(rows[0]["task"]).reading
    axis.set_xlim(0, 102 if title.endswith("%") else 1.02)
    axis.set_title(model, fontsize=10, loc="left")
    worst = f" of the worst {find_task(rows[0]['task']).part}" if rows[0]["each"] else ""
    axis.set_xlabel(f"{title}{worst}: mean, and each seed", fontsize=8)
    axis.tick_params(labelsize=8)
