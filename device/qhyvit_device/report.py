"""Results of a bench as a table for people, and a bar while it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from qhyvit_device.terminal import shown

BAR, OPS = 30, 12  # characters; slowest kinds of ops that are shown


def progress(what: str, share: float) -> None:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        return
    done = round(BAR * min(share, 1.0))
    end = "\r" if share < 1 else "\n"
    print(f"{what:10s} [{'#' * done}{'.' * (BAR - done)}] {share:4.0%}", end=end, file=sys.stderr, flush=True)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, the first to the left, the others to the right."""
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _model_row(model: dict[str, Any], base: str, key: str) -> list[str]:
    x, against = model["inference"], model.get(f"ratio_to_{base}")
    ratio = "" if against is None else f"{against['median']:.2f} ({against['low']:.2f} to {against['high']:.2f})"
    around = model["preprocess"]["p50"] + model["postprocess"]["p50"]
    memory, parts = model["peak_memory_mib"], model["delegate_partitions"]
    return [
        model["model"], *(_ms(x[k]) for k in ("min", "p50", key, "p99", "std")), ratio, _ms(around),
        _ms(model["first_inference_ms"]), _ms(model["init_ms"]), "" if memory is None else f"{memory:.0f}",
        f"{model['size_bytes'] / 1e6:.1f}", "?" if parts is None else str(parts),
    ]  # fmt: skip


def _machine(found: dict[str, Any]) -> str:
    board, after, settings = found["board"], found["after"], found["settings"]
    parts = [board["board"], board["processor"], f"{board['cores']} cores", ", ".join(board["features"])]
    if after["temperature_c"] is not None:
        parts.append(f"{after['temperature_c']:.0f} degrees")
    if after["governor"]:
        parts.append(f"governor {after['governor']}")
    threads = settings["threads"]
    parts += [f"{threads} thread{'s' if threads > 1 else ''}", found["models"][0]["runtime"]]
    return "; ".join(shown(p) for p in parts if p)


def table(found: dict[str, Any], *, mlperf: bool = False) -> str:
    """One bench: the machine, a row a model, times by op where they were measured, and what speaks against it."""
    base, key = found["models"][0]["model"], "p90" if mlperf else "p95"
    head = [
        "model", "min ms", "p50", key, "p99", "std", f"x {base}", "pre+post", "first", "init", "MiB", "MB",
        "partitions",
    ]  # fmt: skip
    rows = [head, *(_model_row(m, base, key) for m in found["models"])]
    if len(rows) == 2:
        rows = [[c for c, h in zip(row, head, strict=True) if not h.startswith("x ")] for row in rows]
    parts = [_machine(found), columns(rows)]
    for model in found["models"]:
        if "ops" in model:
            parts.append(_ops(model))
    if found.get("sustained"):
        parts.append(_sustained(found["sustained"]))
    parts += [f"warning: {shown(w)}" for w in found["warnings"]]
    return "\n".join(parts) + "\n"


def _ops(model: dict[str, Any]) -> str:
    rows = [["op", "kernel", "ops", "us", "%"]]
    rows += [
        [o["op"], o["kernel"], str(o["count"]), f"{o['us']:.0f}", f"{100 * o['share']:.1f}"] for o in model["ops"][:OPS]
    ]
    return f"\n{shown(model['model'])}, time by op\n{columns(rows)}"


def _sustained(windows: Sequence[dict[str, Any]]) -> str:
    names = list(windows[0]["p50_ms"])
    rows = [["second", *(f"{n} p50" for n in names), "degrees", "MHz", "throttled"]]
    for w in windows:
        temperature, clock = w["temperature_c"], w["frequency_khz"]
        rows.append([f"{w['second']:.0f}", *(_ms(w["p50_ms"][n]) for n in names),
                     "" if temperature is None else f"{temperature:.0f}", "" if clock is None else str(clock // 1000),
                     ", ".join(w["throttled_now"])])  # fmt: skip
    return "\n" + columns(rows)
