"""Makes the latency profile that comes with the package: small models, profiled op by op, and the fit.

Each model is built four times: float, integer, with softmax and all ops that can be tables of codes in float, and with
every SiLU split and all ops in float that can be; so every kernel and the borders are measured, on large tensors too.
Weights are random, images generated. Measure on a machine left to itself; the files are made once and kept in
``--work``. Example:

    python -m benchmarks.latency_profile --work build/latency-profile
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from benchmarks.coverage import SEED, images_into
from qhyvit import files, stages
from qhyvit.folds import all_folds
from qhyvit.graph.ir import Graph
from qhyvit.latency.fit import fit
from qhyvit.latency.profile import DEFAULT, default_profile
from qhyvit.latency.work import TABLE_OPS
from qhyvit.methods import method
from qhyvit.methods._problem import Problem
from qhyvit.plan import QuantPlan
from qhyvit.tflite.islands import with_floats
from qhyvit.tflite.placement import times
from qhyvit.tflite.write import quantize
from qhyvit_device import bench
from qhyvit_device.preprocess import images_in, normalize
from qhyvit_device.profile import profile

MODELS = ("mobilevit_xxs", "mobilevitv2_050", "efficientformer_l1", "efficientformerv2_s0", "mobile_former_26m")
CALIBRATION = 4
FLOAT_OPS = ("SOFTMAX", *TABLE_OPS)


def _integer(graph: Graph, pixels: torch.Tensor) -> bytes:
    solution = method("minmax").search(Problem(graph, pixels), {"observer": "minmax"})
    return quantize(solution.shipped, QuantPlan(solution.tensors, "minmax"))


def prepare(model: str, folder: Path, images: Path) -> list[Path]:
    """Float, integer, and with islands; files that are there are kept."""
    paths = [folder / f"{model}-{kind}.tflite" for kind in ("float", "integer", "islands", "mostly-float")]
    if all(p.is_file() for p in paths):
        return paths
    work = stages.Work(folder / model, log=lambda line: print(f"{model}: {line}", flush=True))
    stages.export(work, model, None, None, None, SEED)
    facts = work.json(stages.FACTS)
    how = stages.preprocess_for(images, stages.default_preprocess(facts), "squash")
    raw = stages.load_pixels(images_in(images)[:CALIBRATION], facts["input_size"], how)
    pixels = torch.from_numpy(normalize(raw, how))
    graph = stages.float_graph(work)
    names = [graph.tensors[n.outputs[0]].name for n in graph.nodes if n.op in FLOAT_OPS]
    islands, mostly = with_floats(graph, names), _mostly_float(graph)
    made = work.read(stages.FLOAT), *(_integer(g, pixels) for g in (graph, islands, mostly))
    for path, data in zip(paths, made, strict=True):
        files.write_bytes(path, data)
    return paths


def _mostly_float(graph: Graph) -> Graph:
    fold = all_folds()["silu_split"]
    for place in fold.places(graph):
        graph = fold.apply(graph, place, np.linspace(0.5, 1.0, place.channels))
    return replace(graph, floats=frozenset(times(graph, default_profile()).int8), wide=frozenset())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="names with commas")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the files and the bench")
    parser.add_argument("--runs", type=int, default=40, help="inferences of each model")
    parser.add_argument("--out", type=Path, default=DEFAULT, help="default: the package's own")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    images = images_into(args.work / "images")
    models = track(args.models.split(","), "make files", disable=not sys.stderr.isatty())
    paths = [path for model in models for path in prepare(model, args.work, images)]
    found = bench.bench(paths, bench.Settings(runs=3, seconds=0.0), memory=False)
    for row in track(found["models"], "profile", disable=not sys.stderr.isatty()):
        row.update(asdict(profile(Path(row["file"]), 1, args.runs)))
    kept = args.work / "bench.json"
    bench.write_json(kept, {"benches": [found], "mlperf": False})
    fitted = fit([kept])
    files.write_text(args.out, fitted.to_json())
    measured = sum(k.samples > 0 for k in fitted.kernels.values())
    print(f"{args.out}: {measured} of {len(fitted.kernels)} kernels measured on {fitted.name}")
    for warning in found["warnings"]:
        print(f"warning: {warning}")


if __name__ == "__main__":
    main()
