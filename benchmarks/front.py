"""Accuracy, size and time of one model's files beside each other, and the picture of it in the README.

The stock files are timm's own module through litert-torch, and ai-edge-quantizer's recipes on it; ours are those that
``benchmarks.accuracy`` kept in its work directory. Every file runs on all labelled images, then all run in turn, round
by round, in one process. Measure on a machine left to itself. Example:

    python -m benchmarks.front mobilevitv2_075 --weights W.safetensors --images train/ --evaluate val/ extra/ \\
        --resize-mode squash --work build/v2
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks._files import (
    COMPARED,
    RESULTS,
    add_images,
    beside_float,
    model_name,
    pixels_of,
    ranked_sets,
    read_rows,
    write_rows,
)
from benchmarks.accuracy import kept_file
from benchmarks.stock import quantize, stock_export
from qhyvit import data, files
from qhyvit.evaluation import logits_of
from qhyvit.models.shared.source import open_source
from qhyvit.tasks.shared.accuracy import count
from qhyvit.work import default_preprocess
from qhyvit_device import bench

PICTURE = RESULTS.parent.parent / "docs" / "front.png"
FLOAT = "float"
STOCK = {
    "ai-edge-quantizer int8": "static_wi8_ai8",
    "ai-edge-quantizer dynamic int8": "dynamic_wi8_afp32",
    "ai-edge-quantizer dynamic int4": "dynamic_wi4_afp32",
}
OURS = {"qhyvit int8": ("8", None), "qhyvit w4a8, 2.5 MB": ("w4a8", "2.5MB"), "qhyvit w4a8, 2.1 MB": ("w4a8", "2.1MB")}
STOCK_IMAGES = 32  # that the static recipe calibrates on
SETTINGS = bench.BenchSettings(runs=100, seconds=4.0)


def _made(args: argparse.Namespace, source: Any, how: Any) -> dict[str, Path]:
    """The files by label; those of ours that no run has kept are left out."""
    place = args.work / "front"
    place.mkdir(parents=True, exist_ok=True)
    images = [*data.calibration_images(args.images, STOCK_IMAGES, args.seed).values()]
    stock, pixels = stock_export(args.model, args.weights, source.shape), pixels_of(images, source.shape, how)
    models = {FLOAT: stock, **{label: quantize(stock, recipe, pixels, how) for label, recipe in STOCK.items()}}
    found = {}
    for label, model in models.items():
        found[label] = place / f"{label.replace(' ', '_')}.tflite"
        files.write_bytes(found[label], model)
    for label, (bits, size) in OURS.items():
        run = argparse.Namespace(work=args.work, bits=bits, size=size, count=args.count)
        kept = kept_file(run, "qhyvit", args.seed)
        if kept.is_file():
            found[label] = kept
        else:
            print(f"{label}: not there; benchmarks.accuracy with --bits {bits} makes it", flush=True)
    return found


def rows_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a file: how right, how like float, how large, how fast."""
    source = open_source(args.model, args.weights)
    how = default_preprocess({"preprocess": source.preprocess})
    test = replace(how, mode=args.resize_mode)
    made = _made(args, source, how)
    labelled = [*ranked_sets(args.evaluate, args.labels, source.classes).values()][-1]
    pixels = pixels_of(labelled.paths, source.shape, test)
    times = bench.bench([*made.values()], SETTINGS, memory=False)["models"]
    base, reference, rows = times[0]["samples_ms"]["inference"], np.empty(0), []
    for (label, path), measured in zip(made.items(), times, strict=True):
        model = path.read_bytes()
        logits = logits_of(model, pixels, test)
        reference = logits if label == FLOAT else reference
        ratio = bench.ratio(measured["samples_ms"]["inference"], base)
        rows.append({
            "model": model_name(args.model), "file": label,
            **beside_float(count(logits, labelled.truth, reference), len(model), measured["inference"]["p50"], ratio),
            "file_sha256": files.sha256(model), "seed": args.seed,
        })  # fmt: skip
        print(", ".join(f"{k} {v}" for k, v in rows[-1].items() if k != "file_sha256"), flush=True)
    return rows


def draw(path: Path) -> None:
    """Agreement with float over the size of the file; beside each point its milliseconds."""
    rows = [r for r in read_rows(RESULTS / "front.csv") if r["model"] == COMPARED]
    figure = Figure(figsize=(7.6, 3.8))
    axis = figure.subplots()
    for r in rows:
        ours, x, y = r["file"].startswith("qhyvit"), int(r["size_bytes"]) / 1e6, float(r["agreement_percent"])
        axis.plot(x, y, "o", color="#2a6f97" if ours else "#c1440e" if r["file"] == FLOAT else "#8d99a6", markersize=8)
        says, left = f"{r['file']}: {float(r['top1_percent']):.1f} %, {float(r['p50_ms']):.1f} ms", x > 8
        axis.annotate(says, (x, y), xytext=(-8 if left else 8, -3), textcoords="offset points", fontsize=8,
                      ha="right" if left else "left")  # fmt: skip
    axis.set_xlabel("size of the file, MB", fontsize=8)
    axis.set_ylabel("decides as float, %", fontsize=8)
    axis.set_title(f"{COMPARED}: top-1 and time of each file, {rows[0]['images']} images", fontsize=9, loc="left")
    axis.set_xlim(0, None)
    axis.set_ylim(None, 103)
    axis.grid(visible=True, color="#e3e6ea", linewidth=0.6)
    axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name of the zoo, or FILE.py:FUNCTION")
    parser.add_argument("--weights", type=Path, required=True)
    add_images(parser)
    parser.add_argument("--count", type=int, default=128, help="calibration images of ours")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="work directory of benchmarks.accuracy")
    parser.add_argument("--out", type=Path, default=RESULTS / "front.csv")
    return parser


def main() -> None:
    """Command line."""
    args = _parser().parse_args()
    write_rows(args.out, rows_of(args), ("model", "file"))
    if args.out == RESULTS / "front.csv":
        draw(PICTURE)


if __name__ == "__main__":
    main()
