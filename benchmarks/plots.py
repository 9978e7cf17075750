"""The picture of the README from results/accuracy.csv: what each part of the method brings, and the rivals."""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks._files import RESULTS, read_rows

PICTURE = RESULTS.parent.parent / "docs" / "accuracy.png"
WAY = "deployed integer"


def _bars(table: str) -> list[tuple[str, float, float, float]]:
    """(row and calibration images, mean, lowest, highest) top-1 of the deployed files."""
    found: dict[str, list[float]] = {}
    for r in read_rows(RESULTS / "accuracy.csv"):
        if r["table"] == table and r["counted"] == WAY and r["bits"] == "8":
            label = f"{r['row']} ({r['calibration_images']})"
            found.setdefault(label, []).append(float(r["top1_percent"]))
    return [(name, sum(v) / len(v), min(v), max(v)) for name, v in found.items()]


def draw(path: Path) -> None:
    """Two panels of bars, the float model as a line."""
    float_top1 = float(read_rows(RESULTS / "accuracy.csv")[0]["float_top1_percent"])
    figure = Figure(figsize=(11, 3.8))
    axes = figure.subplots(1, 2, sharex=True)
    panels = (("methods", "methods, as deployed"), ("ablation", "each part adds to the one above"))
    for axis, (table, title) in zip(axes, panels, strict=True):
        bars = _bars(table)
        names, means = [b[0] for b in bars], [b[1] for b in bars]
        errors = [[m - b[2] for m, b in zip(means, bars, strict=True)], [b[3] - b[1] for b in bars]]
        colours = ["#2a6f97" if n.startswith(("qhyvit", "+", "scale")) else "#a9b4c2" for n in names]
        axis.barh(names, means, xerr=errors, color=colours, ecolor="#333333", capsize=2)
        axis.axvline(float_top1, color="#c1440e", linewidth=1.2, label=f"float {float_top1:.1f}")
        axis.invert_yaxis()
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("top-1 %, fully integer .tflite, mean and range over seeds", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.legend(loc="lower right", fontsize=8)
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
