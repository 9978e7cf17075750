"""Time of both profiles over that of the float file, for every variant: none may be slower.

Random weights, generated images, one thread; the three files of a variant run in turn, round by round, in one process.
Files are made once and kept in ``--work``; rows that are there are kept. Measure on a machine left to itself. Example:

    python -m benchmarks.variants --work build/variants --prepare
    python -m benchmarks.variants --work build/variants
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks._files import RESULTS, have_rows, write_rows
from benchmarks.coverage import images_into
from benchmarks.latency import OWN, QUICK, own_files
from qhyvit.models import all_families
from qhyvit_device import bench

SETTINGS = bench.BenchSettings(runs=30, seconds=2.0)
CALIBRATION = 4
# weights and biases in closed form leave the ops as they are, too
OPTIONS = {**QUICK, "ridge": 0.0, "rounding": False, "bias": False}


def row_of(variant: str, paths: dict[str, Path]) -> dict[str, Any]:
    """Milliseconds of the three files, and ratios to the float one: median, and the middle half of the rounds."""
    found = bench.bench([paths[name] for name in OWN], SETTINGS, memory=False)
    row: dict[str, Any] = {"variant": variant}
    base = found["models"][0]["samples_ms"]["inference"]
    for name, measured in zip(OWN, found["models"], strict=True):
        row[f"{name.replace(' ', '_')}_ms"] = f"{measured['inference']['p50']:.2f}"
        if name != OWN[0]:
            ratio = bench.ratio(measured["samples_ms"]["inference"], base)
            row |= {name: f"{ratio.median:.3f}", f"{name}_low": f"{ratio.low:.3f}", f"{name}_high": f"{ratio.high:.3f}"}
    return {**row, "processor": found["board"]["processor"], "runtime": found["models"][0]["runtime"]}


def main() -> None:
    """Command line; exit code 1 where a profile is slower than float."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [v for family in all_families().values() for v in family.variants]
    parser.add_argument("--variants", default=",".join(known), help="names with commas (default: all)")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the files")
    parser.add_argument("--prepare", action="store_true", help="make the files and measure nothing")
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    parser.add_argument("--out", type=Path, default=RESULTS / "variants.csv")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    images, slower = images_into(args.work / "images"), []
    for variant in track(args.variants.split(","), "variants", disable=not sys.stderr.isatty()):
        if not args.again and have_rows(args.out, {"variant": variant}):
            continue
        paths = own_files(variant, args.work / variant, images, None, CALIBRATION, OPTIONS)
        if args.prepare:
            continue
        row = row_of(variant, paths)
        slower += [f"{variant} {name}" for name in OWN[1:] if float(row[name]) > 1]
        print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        write_rows(args.out, [row], ("variant",))
    if slower:
        sys.exit(f"slower than float: {', '.join(slower)}")


if __name__ == "__main__":
    main()
