"""Instructions of one inference on **emulated** arm64 processors, of the files that ``benchmarks.latency`` made.

Counted as the difference between a process that runs the file nine times and one that runs it once. An emulator tells
how many instructions a processor would take, not how long: cores, caches and memory have no part in it. Two files more
are made for each processor, ``integer`` and ``cpu`` built for the target of that name. Beside ``integer for it`` stands
what its multiply-accumulates alone take by that processor's profile, as an estimate of what int8 layers need at least.
Example:

    python -m benchmarks.latency --work build/latency --weights weights --prepare
    python -m benchmarks.instructions --work build/latency --weights weights
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks import _arm64
from benchmarks._files import RESULTS, have_rows, read_rows, write_rows
from benchmarks.coverage import images_into
from benchmarks.latency import FILES, MODELS, calibrated, file_name, weights_of
from qhyvit import files
from qhyvit.config import TargetConfig
from qhyvit.errors import QhyvitError
from qhyvit.latency.fit import load
from qhyvit.latency.profile import packaged
from qhyvit.latency.work import INT8, float_work, work_of
from qhyvit.tflite.read import read
from qhyvit.work import MODEL
from qhyvit_device.runner import TfliteFile

FEW, MANY = 1, 9  # Python itself takes half a million instructions more or less
KEY = ("model", "file", "processor")
FOR_IT = {"integer for it": True, "cpu for it": False}  # built with the processor's latency profile
PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL")


def _feed(model: Path, count: int) -> np.ndarray:
    """Random inputs of the file's own type."""
    entry = TfliteFile(model.read_bytes()).input
    shape, dtype, rng = (count, *entry["shape"][1:]), np.dtype(entry["dtype"]), np.random.default_rng(0)
    if dtype.kind == "f":
        return rng.random(shape, np.float32).astype(dtype)
    return rng.integers(-128, 127, shape, dtype=dtype, endpoint=True)


def per_inference(few: str, many: str) -> int:
    """Instructions of one inference, from what QEMU's plugin wrote after ``FEW`` and after ``MANY`` of them."""
    totals = [sum(int(n) for n in re.findall(r"^total insns: (\d+)", text, re.MULTILINE)) for text in (few, many)]
    return (totals[1] - totals[0]) // (MANY - FEW)


def instructions(place: Path, processor: str, model: Path) -> tuple[int, int]:
    """Instructions of one inference, and XNNPACK's partitions.

    Raises:
        QhyvitError: the emulated process failed.
    """
    counts, partitions = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for runs in (FEW, MANY):
            images, counted = Path(folder) / "x.npy", Path(folder) / "count.txt"
            np.save(images, _feed(model, runs))
            arguments = (_arm64.SCRIPT, model, images, Path(folder) / "o.npz", "xnnpack")
            done = _arm64.emulate(place, processor, *arguments, count_into=counted)
            if done.returncode:
                raise QhyvitError(f"{model.name} on {processor}: {done.stderr.strip().splitlines()[-1]}")
            partitions = int(re.findall(r'"partitions": (\d+)', done.stdout)[-1])
            counts.append(counted.read_text())
    return per_inference(*counts), partitions


def _file(work: Path, model: str, name: str, processor: str, weights: Path | None) -> Path:
    """The file of that name; the one for the processor is made where it is not there."""
    folder = work / model
    if name not in FOR_IT:
        return folder / file_name(name)
    path = folder / f"{name.split()[0]}-{processor}.tflite"
    if not path.is_file():
        images = images_into(work / "images")
        target = TargetConfig(f"litert-{processor}", integer=FOR_IT[name])
        made = calibrated(model, folder / path.stem, images, weights, target)
        files.write_bytes(path, made.read(MODEL))
    return path


def products_to_own_float(integer: Path, floating: Path, processor: str) -> float:
    """What the multiply-accumulates of an integer file take by themselves, over all that its own float file takes.

    Both by the processor's latency profile: an estimate. Kernels of the float file that no profile has (SPLIT, copies
    between batches and space) count nothing.
    """
    profile, (file, network) = load(packaged()[processor]), (read(path.read_bytes()) for path in (integer, floating))
    work = [work_of(file, node, INT8, INT8) for node in file.nodes if node.op in PRODUCTS]
    whole = sum(profile.ms(part) or 0.0 for node in network.nodes for part in float_work(network, node))
    return sum(profile.kernels[w.kernel].ns_per_mac * w.macs for w in work) / 1e6 / whole


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="names with commas")
    parser.add_argument("--work", type=Path, required=True, help="the folder of benchmarks.latency")
    parser.add_argument("--weights", type=Path, help="folder with NAME.safetensors; others get random weights")
    parser.add_argument("--again", action="store_true", help="make rows again that are there")
    parser.add_argument("--out", type=Path, default=RESULTS / "instructions.csv")
    args = parser.parse_args()
    place = _arm64.folder()
    _arm64.prepare(place, counting=True)
    tasks = [(m, f, p) for m in args.models.split(",") for p in _arm64.PROCESSORS for f in (*FILES, *FOR_IT)]
    tasks = [t for t in tasks if args.again or not have_rows(args.out, dict(zip(KEY, t, strict=True)))]
    if tasks:  # the first run writes Python's bytecode as well: thrown away
        instructions(place, tasks[0][2], args.work / tasks[0][0] / file_name(tasks[0][1]))
    for model, name, processor in track(tasks, "count", disable=not sys.stderr.isatty()):
        path = _file(args.work, model, name, processor, weights_of(model, args.weights))
        count, partitions = instructions(place, processor, path)
        row: dict[str, Any] = {
            "model": model, "file": name, "processor": processor, "emulated": "yes", "partitions": partitions,
            "million_instructions": f"{count / 1e6:.1f}",
        }  # fmt: skip
        written = [r for r in read_rows(args.out) if r["model"] == model and r["processor"] == processor]
        base = [float(r["million_instructions"]) for r in [*written, row] if r["file"] == FILES[0]]
        row["to_float"] = f"{float(row['million_instructions']) / base[0]:.3f}"
        if name == "integer for it":
            share = products_to_own_float(path, args.work / model / file_name("own float"), processor)
            row["products_to_own_float_estimated"] = f"{share:.3f}"
        print(f"{model} {name} on emulated {processor}: {row['million_instructions']} M, {row['to_float']} of float")
        sys.stdout.flush()
        write_rows(args.out, [row], KEY)


if __name__ == "__main__":
    main()
