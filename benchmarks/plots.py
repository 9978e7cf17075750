"""The picture of the README from results/accuracy.csv: what each part of the method brings, and the rivals."""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks._files import COMPARED, RESULTS, of_all_images, read_rows

PICTURE = RESULTS.parent.parent / "docs" / "accuracy.png"
WAY = "deployed integer"


def _rows() -> list[dict[str, str]]:
    return [r for r in read_rows(RESULTS / "accuracy.csv") if r["model"] == COMPARED and of_all_images(r)]


def _bars(table: str, column: str) -> list[tuple[str, float, float, float]]:
    """(row and calibration images, mean, lowest, highest) of the deployed files."""
    found: dict[str, list[float]] = {}
    for r in _rows():
        if r["table"] == table and r["counted"] == WAY and r["bits"] == "8":
            label = f"{r['row']} ({r['calibration_images']})"
            found.setdefault(label, []).append(float(r[column]))
    return [(name, sum(v) / len(v), min(v), max(v)) for name, v in found.items()]


def draw(path: Path) -> None:
    """Two panels of bars, the float model as a line."""
    float_top1 = float(_rows()[0]["float_top1_percent"])
    figure = Figure(figsize=(11, 3.8))
    axes = figure.subplots(1, 2)
    panels = (
        ("methods", "top1_percent", "methods: top-1 %", 0),
        ("ablation", "agreement_percent", "parts: agrees with float %", 75),
    )
    for axis, (table, column, title, first) in zip(axes, panels, strict=True):
        bars = _bars(table, column)
        names, means = [b[0] for b in bars], [b[1] for b in bars]
        errors = [[m - b[2] for m, b in zip(means, bars, strict=True)], [b[3] - b[1] for b in bars]]
        colours = ["#2a6f97" if n.startswith(("qhyvit", "+", "scale")) else "#a9b4c2" for n in names]
        axis.barh(names, means, xerr=errors, color=colours, ecolor="#333333", capsize=2)
        line = float_top1 if table == "methods" else 100.0
        axis.axvline(line, color="#c1440e", linewidth=1.2)
        place = axis.get_xaxis_transform()
        label = f"float {line:.1f}"
        axis.text(line, 1.02, label, ha="center", va="bottom", fontsize=8, color="#c1440e", transform=place)
        axis.invert_yaxis()
        axis.set_xlim(first, 1.04 * line)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("fully integer .tflite, mean and range over seeds (calibration images)", fontsize=8)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PICTURE)
    args = parser.parse_args()
    draw(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
