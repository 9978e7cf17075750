"""Makes the latency profile that comes with the package: small models, profiled op by op, and the fit.

Each model is built five times: float, integer, with softmax and all ops that can be tables of codes in float, with
every SiLU split and all ops in float that can be, and with all ops in int16 that can be; so every kernel and the
borders are measured, on large tensors too.
Weights are random, images generated. Measure on a machine left to itself; the files are made once and kept in
``--work``. Examples:

    python -m benchmarks.latency_profile --work build/latency-profile
    python -m benchmarks.latency_profile --work build/latency-profile --processor cortex-a72

With ``--processor`` **emulated** instructions stand for time: QEMU's clock counts them (tools/instruction_clock.c). The
unit is such that the median kernel takes as long as in the default profile; only ratios mean something.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from benchmarks import _arm64
from benchmarks.coverage import SEED, images_into
from qhyvit import data, files, stages
from qhyvit.config import ModelConfig
from qhyvit.errors import QhyvitError
from qhyvit.folds import all_folds
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph
from qhyvit.latency.fit import fit, samples, slowdown
from qhyvit.latency.profile import DEFAULT, LatencyProfile, default_profile
from qhyvit.lowering.lower import quantized_file
from qhyvit.lowering.placement import times
from qhyvit.lowering.profiles import with_islands
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.ops import all_ops
from qhyvit.plan import QuantPlan
from qhyvit.work import FACTS, FLOAT, Work, default_preprocess, input_shape
from qhyvit_device import bench
from qhyvit_device.preprocess import images_in, normalize
from qhyvit_device.profile import profile
from qhyvit_device.runner import TfliteFile

MODELS = ("mobilevit_xxs", "mobilevitv2_050", "efficientformer_l1", "efficientformerv2_s0", "mobile_former_26m")
CALIBRATION = 4
FLOAT_OPS = ("SOFTMAX", *(name for name, op in all_ops().items() if op.table))
COUNTED_RUNS = 2  # each takes as many instructions
COUNTED = "instructions counted by QEMU, no times"


def _integer(graph: Graph, pixels: torch.Tensor) -> bytes:
    problem = Problem(graph, pixels)
    solution = method("minmax").search(problem, {"fast_softmax": False, "fast_gelu": False})
    return quantized_file(solution.shipped, QuantPlan(solution.tensors, "minmax", int16=solution.int16))


def prepare(model: str, folder: Path, images: Path) -> list[Path]:
    """Float, integer, with float islands, and with int16 ones; files that are there are kept."""
    paths = [folder / f"{model}-{kind}.tflite" for kind in ("float", "integer", "islands", "mostly-float", "int16")]
    if all(p.is_file() for p in paths):
        return paths
    work = Work(folder / model, log=lambda line: print(f"{model}: {line}", flush=True))
    stages.export(work, ModelConfig(model, random_weights=True), SEED)
    facts = work.json(FACTS)
    how = data.preprocess_for(images, default_preprocess(facts), "squash")
    raw = data.load_pixels(images_in(images)[:CALIBRATION], input_shape(facts), how)
    pixels = torch.from_numpy(normalize(raw, how))
    graph = stages.float_graph(work)
    chosen = [n.outputs[0] for n in graph.nodes if n.op in FLOAT_OPS]
    islands, mostly = with_islands(graph, "cpu", chosen), _mostly_float(graph)
    wide = with_islands(edit.all_int8(graph), "integer", times(graph, default_profile(), int16=True).int8)
    made = (work.read(FLOAT), *(_integer(g, pixels) for g in (graph, islands, mostly)),
            _integer(wide, pixels))  # fmt: skip
    for path, content in zip(paths, made, strict=True):
        files.write_bytes(path, content)
    return paths


def _mostly_float(graph: Graph) -> Graph:
    fold = all_folds()["silu_split"]
    for place in fold.places(graph):
        graph = fold.apply(graph, place, np.linspace(0.5, 1.0, place.channels))
    return with_islands(edit.all_int8(graph), "cpu", times(graph, default_profile()).int8)


def _timed(paths: list[Path], runs: int) -> dict[str, Any]:
    """A bench of these files on this processor, with times by op."""
    found = bench.bench(paths, bench.BenchSettings(runs=3, seconds=0.0), memory=False)
    for row in track(found["models"], "profile", disable=not sys.stderr.isatty()):
        row.update(asdict(profile(Path(row["file"]), 1, runs)))
    return found


def _counted(paths: list[Path], processor: str) -> dict[str, Any]:
    """The same with instructions of an emulated processor in the place of microseconds.

    Raises:
        QhyvitError: the emulated process failed.
    """
    place = _arm64.folder()
    _arm64.prepare(place, counting=True)
    models = []
    for path in track(paths, "count", disable=not sys.stderr.isatty()):
        arguments = ("-m", "qhyvit_device.profile", path, "1", str(COUNTED_RUNS))
        done = _arm64.emulate(place, processor, *arguments, clock=True)
        if done.returncode:
            raise QhyvitError(f"{path.name} on {processor}: {done.stderr.strip().splitlines()[-1]}")
        row = json.loads(done.stdout.splitlines()[-1])
        models.append({**row, "graph": TfliteFile.load(path).graph(), "runtime": COUNTED})
    board = {"board": "", "processor": f"{processor} (emulated)", "features": []}
    return {"board": board, "settings": {"threads": 1}, "models": models, "warnings": []}


def _at_the_defaults_pace(counted: LatencyProfile, models: list[dict[str, Any]]) -> LatencyProfile:
    """In milliseconds of the default profile's median kernel: what a fold may cost is a number of milliseconds."""
    return counted.scaled(1 / slowdown([s for m in models for s in samples(m)], default_profile()))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="names with commas")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the files and the bench")
    parser.add_argument("--runs", type=int, default=40, help="inferences of each model")
    parser.add_argument("--processor", choices=_arm64.PROCESSORS, help="an emulated one; default: this one")
    parser.add_argument("--out", type=Path, help="default: the package's own of that name")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    images = images_into(args.work / "images")
    models = track(args.models.split(","), "make files", disable=not sys.stderr.isatty())
    paths = [path for model in models for path in prepare(model, args.work, images)]
    found = _timed(paths, args.runs) if args.processor is None else _counted(paths, args.processor)
    kept = args.work / (f"{args.processor}.json" if args.processor else "bench.json")
    bench.write_json(kept, {"benches": [found], "mlperf": False})
    fitted = fit([kept])
    if args.processor:
        fitted = _at_the_defaults_pace(fitted, found["models"])
    out = args.out or (DEFAULT.with_name(f"{args.processor}.json") if args.processor else DEFAULT)
    files.write_text(out, fitted.to_json())
    measured = sum(k.samples > 0 for k in fitted.kernels.values())
    print(f"{out}: {measured} of {len(fitted.kernels)} kernels measured on {fitted.name}")
    for warning in found["warnings"]:
        print(f"warning: {warning}")


if __name__ == "__main__":
    main()
