"""A card as Markdown, and both of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qhyvit import evaluation, files
from qhyvit.card.facts import Card, Figure
from qhyvit.tasks import task
from qhyvit_device.manifest import RANDOM

SHOWN = 20  # outputs or values in the Markdown; the JSON has all


def write(card: Card, target: Path) -> tuple[Path, Path]:
    """``target`` with the endings ``.md`` and ``.json`` behind it.

    Raises:
        OutputError: one cannot be written.
    """
    paths = files.beside(target, ".md"), files.beside(target, ".json")
    files.write_text(paths[0], markdown(card))
    files.write_text(paths[1], json.dumps(card.to_json(), indent=1) + "\n")
    return paths


def _percent(figure: Figure, value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    text = evaluation.shown(figure.name, value)
    return text if low is None else f"{text} ({low:.1f} to {high:.1f})"


def _plain(value: object) -> str:
    """A text for a table's cell: others wrote it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    return [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in (head, ("---",) * len(head), *rows)] + [""]


def markdown(card: Card) -> str:
    """The card for people."""
    lines = [f"# {_plain(card.bundle)}", ""]
    if card.random_weights:
        lines += [f"**{RANDOM[0].upper()}{RANDOM[1:]}.**", ""]
    kind = "fully integer TFLite file" if not card.float_tensors else "TFLite file that computes partly in float"
    lines += [f"{_plain(card.model)} for the task {card.task}, as a {kind}, made by "
              "[qhyvit](https://pypi.org/project/qhyvit/).", "", *_about(card)]  # fmt: skip
    lines += ["## How to run it", "", "```", *card.run, "```", "", "## Accuracy", "", *_right(card)]
    lines += ["## Speed and memory", "", *_fast(card), "## Operators", "", *_built(card), "## How it was made", ""]
    rows = [(k.replace("_", " "), v) for k, v in card.made.items() if k not in ("config", "versions") and v is not None]
    lines += _table(("what", "is"), rows)
    lines += ["Versions: " + ", ".join(f"{_plain(k)} {_plain(v)}" for k, v in card.made["versions"].items()) + ".", ""]
    return "\n".join(lines)


def _about(card: Card) -> list[str]:
    size = f"{card.size_bytes / 1e6:.2f} MB"
    if card.float_size_bytes is not None:
        size += f" (float file: {card.float_size_bytes / 1e6:.2f} MB)"
    outputs = [(name if name.startswith("output") else f"output {name}", form) for name, form in card.outputs.items()]
    return _table(("fact", "value"), [
        ("input", card.input), *outputs, ("size", size),
        ("runs on", card.oldest_runtime), ("licence of the weights", card.licence),
    ])  # fmt: skip


def _right(card: Card) -> list[str]:
    found = card.accuracy
    lines = [f"{_plain(card.verified)}.", ""] if card.verified else []
    if found is None:
        return [*lines, "Not measured: `qhyvit card BUNDLE --images FOLDER` does it.", ""]
    what = task(card.task)
    names = what.columns
    rows = [(names.get(f.name, f.name), _percent(f, f.integer, f.low, f.high),
             _percent(f, f.floating, f.floating_low, f.floating_high)) for f in found.figures]  # fmt: skip
    if found.agreement is not None:
        a = found.agreement
        rows.append((a.name + what.worst_of(found.each), _percent(a, a.integer, a.low, a.high), ""))
    with_bounds = any(f.low is not None for f in (*found.figures, *[a for a in (found.agreement,) if a]))
    about = f"On {found.images} images of {_plain(found.folder)}, which were not used to calibrate"
    about += ", with Wilson's interval at 95 %." if with_bounds else "."
    lines += [about, "", *_table(("figure", "integer file", "float file"), rows)]
    if found.each:
        worst = [(name, evaluation.shown(what.reading, kept)) for name, kept in [*found.each.items()][:SHOWN]]
        lines += _table((f"{what.part}, the worst first", what.reading), worst)
    if found.p_value is not None:
        test = f"paired test, p = {found.p_value:.3g}"
        lines += [f"Images on which it is better than float: {found.gained}; worse: {found.lost} ({test}).", ""]
    return lines


def _fast(card: Card) -> list[str]:
    s = card.speed
    if s is None:
        return ["Not measured: `qhyvit card BUNDLE --bench 5` does it on this machine, `qhyvit bench` on a board.", ""]
    memory = "not told by the system" if s.peak_memory_mib is None else f"{s.peak_memory_mib:.0f} MiB"
    rows = [(f"{name} of {s.runs} inferences", f"{v:.2f} ms") for name, v in
            (("median", s.p50_ms), ("90th percentile", s.p90_ms), ("99th percentile", s.p99_ms))]  # fmt: skip
    rows += [("first inference", f"{s.first_ms:.2f} ms"), ("loading", f"{s.load_ms:.1f} ms"), ("peak memory", memory)]
    warned = [f"* Warning: {_plain(w)}." for w in s.warnings]
    threads = f"{s.threads} thread" + ("s" if s.threads > 1 else "")
    return [f"{_plain(s.machine)}; {threads}, {_plain(s.runtime)}.", "", *_table(("figure", "value"), rows),
            *warned, *([""] if warned else [])]  # fmt: skip


def _built(card: Card) -> list[str]:
    total, off = sum(card.ops.values()), sum(card.off_delegate.values())
    kinds = ", ".join(f"{n} {op}" for op, n in card.off_delegate.items())
    text = f"{total} ops, {card.float_tensors} float tensors. XNNPACK takes "
    return [text + ("all of them." if not off else f"all but {off}: {kinds}."), ""]
