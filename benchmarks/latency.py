"""Latency of float, the stock converter's int8 and both profiles of qhyvit, for each family: interleaved, with a plot.

Files are made once and kept in ``--work``; then all files of a model run in turn, round by round, in one process. The
stock files are timm's own module through litert-torch (MobileViTv2 with the one line that does not convert replaced)
and ai-edge-quantizer's static int8 recipe on it. Weights are random where no ``--weights`` folder has NAME.safetensors,
images generated: what is measured is time, and accuracy is not looked at. Measure on a machine left to itself. Example:

    python -m benchmarks.latency --work build/latency --weights weights/
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.progress import track

from benchmarks._files import RESULTS, pixels_of, random_weights, ratio_columns, read_rows, write_rows
from benchmarks.coverage import SEED, images_into
from benchmarks.stock import quantize, stock_export
from qhyvit import data, files, stages
from qhyvit.config import DataConfig, MethodConfig, ModelConfig, TargetConfig
from qhyvit.models import find_variant
from qhyvit.verify.census import census
from qhyvit.work import FLOAT, MODEL, Work, default_preprocess
from qhyvit_device import bench

MODELS = ("mobilevit_xxs", "mobilevitv2_075", "efficientformer_l1", "efficientformerv2_s0", "mobile_former_52m")
OWN = ("own float", "integer", "cpu")
FILES = ("stock float", "stock int8", *OWN)
KEY = ("model", "file", "threads", "turn")
PICTURE = RESULTS.parent.parent / "docs" / "latency.png"
CALIBRATION = 8
QUICK = {"learn": 0}  # learning moves scales: it leaves the ops, and so the time, as they are


def file_name(name: str) -> str:
    """Of one of ``FILES``, in the model's folder."""
    return f"{name.replace(' ', '_')}.tflite"


def calibrated(
    model: str, folder: Path, images: Path, weights: Path | None, target: TargetConfig,
    count: int = CALIBRATION, options: Mapping[str, Any] = QUICK,
) -> Work:  # fmt: skip
    """A model's work folder with its integer file, calibrated with ``count`` images; stages that are done are kept."""
    work = Work(folder, log=lambda line: print(f"{model}: {line}", flush=True))
    stages.export(work, ModelConfig(model, weights, random_weights(model, weights)), SEED)
    method = MethodConfig("qhyvit", options, SEED)
    stages.calibrate(work, DataConfig(images, count, "squash"), method, target)
    stages.convert(work)
    return work


def own_files(
    model: str, folder: Path, images: Path, weights: Path | None, count: int = CALIBRATION,
    options: Mapping[str, Any] = QUICK,
) -> dict[str, Path]:  # fmt: skip
    """Our files of a model by name, see :func:`calibrated`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / file_name(name) for name in OWN}
    for profile in ("integer", "cpu"):
        target = TargetConfig(integer=profile == "integer")
        work = calibrated(model, folder / profile, images, weights, target, count, options)
        files.write_bytes(paths[profile], work.read(MODEL))
        files.write_bytes(paths["own float"], work.read(FLOAT))
    return paths


def weights_of(model: str, folder: Path | None) -> Path | None:
    """Its NAME.safetensors in ``folder``, if there is one."""
    path = None if folder is None else folder / f"{model}.safetensors"
    return path if path is not None and path.is_file() else None


def _prepare(model: str, folder: Path, images: Path, weights: Path | None) -> dict[str, Path]:
    """Files of a model by name; those that are there are kept."""
    variant = find_variant(model)[1]
    paths = own_files(model, folder, images, weights)
    paths |= {name: folder / file_name(name) for name in FILES if name not in OWN}
    if not paths["stock int8"].is_file():
        torch.manual_seed(SEED)
        shape = variant.input_size, variant.input_size, 3
        stock = stock_export(model, weights, shape, SEED)
        how = default_preprocess({"preprocess": variant.preprocess})
        pixels = pixels_of([*data.calibration_images(images, CALIBRATION, SEED).values()], shape, how)
        files.write_bytes(paths["stock float"], stock)
        files.write_bytes(paths["stock int8"], quantize(stock, "static_wi8_ai8", pixels, how))
    return paths


def _rows(model: str, paths: dict[str, Path], settings: bench.BenchSettings) -> tuple[list[dict[str, Any]], list[str]]:
    """One row a file, and what the bench warns of."""
    ordered = [paths[name] for name in FILES]
    found = bench.bench(ordered, settings)
    base, stock = (found["models"][i]["model"] for i in (0, 1))
    samples = {m["model"]: m["samples_ms"]["inference"] for m in found["models"]}
    rows = []
    for name, measured in zip(FILES, found["models"], strict=True):
        looked, time = census(paths[name].read_bytes()), measured["inference"]
        own = samples[measured["model"]]
        rows.append({
            "model": model, "file": name, "threads": settings.threads, "turn": settings.turn, "ops": looked.op_count,
            "partitions": measured["delegate_partitions"], "size_mb": f"{measured['size_bytes'] / 1e6:.2f}",
            "p50_ms": f"{time['p50']:.3f}", "p90_ms": f"{time['p90']:.3f}", "std_ms": f"{time['std']:.3f}",
            **ratio_columns("to_float", bench.ratio(own, samples[base])),
            **ratio_columns("to_stock_int8", bench.ratio(own, samples[stock])),
            "first_ms": f"{measured['first_inference_ms']:.1f}",
            "peak_memory_mib": f"{measured['peak_memory_mib']:.1f}",
            "runs": time["count"], "processor": found["board"]["processor"], "runtime": measured["runtime"],
        })  # fmt: skip
    return rows, list(found["warnings"])


def draw(path: Path) -> None:
    """Bars of each file's time over that of the stock float file, with the middle half of the rounds."""
    rows = [r for r in read_rows(RESULTS / "latency.csv") if (r["threads"], r["turn"]) == ("1", "1")]
    models = list(dict.fromkeys(r["model"] for r in rows))
    colours = {"stock int8": "#a9b4c2", "own float": "#e0c097", "integer": "#2a6f97", "cpu": "#61a5c2"}
    figure = Figure(figsize=(10, 3.6))
    axis = figure.subplots()
    for k, (name, colour) in enumerate(colours.items()):
        mine = {r["model"]: r for r in rows if r["file"] == name}
        heights = [float(mine[m]["to_float"]) for m in models]
        spread = [[h - float(mine[m]["to_float_low"]) for m, h in zip(models, heights, strict=True)],
                  [float(mine[m]["to_float_high"]) - h for m, h in zip(models, heights, strict=True)]]  # fmt: skip
        places = [i + (k - 1.5) * 0.2 for i in range(len(models))]
        axis.bar(places, heights, 0.2, yerr=spread, color=colour, label=name, ecolor="#333333", capsize=2)
        for place, height in zip(places, heights, strict=True):
            axis.text(place, height, f"{height:.2f}", ha="center", va="bottom", fontsize=7)
    axis.axhline(1.0, color="#c1440e", linewidth=1.2)
    axis.set_xticks(range(len(models)), models, fontsize=8)
    axis.set_ylabel("time over the stock float file's", fontsize=8)
    axis.set_title("one thread, interleaved runs, median and middle half of the rounds", fontsize=9, loc="left")
    axis.legend(fontsize=8)
    axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="names with commas")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the files")
    parser.add_argument("--weights", type=Path, help="folder with NAME.safetensors; others get random weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--turn", type=int, default=1, help="inferences of a file before the next one's (default 1)")
    parser.add_argument("--prepare", action="store_true", help="make the files and measure nothing")
    parser.add_argument("--out", type=Path, default=RESULTS / "latency.csv")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    images = images_into(args.work / "images")
    prepared = {}
    for model in track(args.models.split(","), "make files", disable=not sys.stderr.isatty()):
        prepared[model] = _prepare(model, args.work / model, images, weights_of(model, args.weights))
    if args.prepare:
        return
    settings = bench.BenchSettings(runs=args.runs, threads=args.threads, turn=args.turn)
    for model, paths in prepared.items():
        rows, warnings = _rows(model, paths, settings)
        for row in rows:
            print(f"{model} {row['file']}: {row['p50_ms']} ms, {row['to_float']} of float", flush=True)
        for warning in warnings:
            print(f"{model}: warning: {warning}", flush=True)
        write_rows(args.out, rows, KEY)
    if args.out == RESULTS / "latency.csv":
        draw(PICTURE)


if __name__ == "__main__":
    main()
