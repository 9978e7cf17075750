"""Accuracy of every method on one model: simulated (partial, full) and deployed, over seeds, and the ablation.

Each run is a process of its own (its peak memory is measured, and its processor time, whatever else the machine does)
and its rows are written as soon as it ends; a second call makes only what is missing, and a run that fails stops no
other. The ablation is deployed only. The simulation of the rows that are ours repeats the file's own arithmetic; that
of the others is straight float32. Images are counted in each labelled folder and, where there are several, in all
of them together.
Example:

    python -m benchmarks.accuracy mobilevitv2_075 --weights W.safetensors --images train/ --evaluate val/ extra/ \\
        --resize-mode squash --work build/v2 --seeds 0,1,2
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rich.progress import track

from benchmarks._files import (
    ALL,
    add_images,
    have_rows,
    model_name,
    pixels_of,
    random_weights,
    ranked_sets,
    write_rows,
)  # fmt: skip
from benchmarks._jobs import add_options, run_jobs
from qhyvit import data, files, stages
from qhyvit.config import W4A8, MethodConfig, ModelConfig
from qhyvit.errors import InputError
from qhyvit.evaluation import logits_of
from qhyvit.graph.ir import Graph
from qhyvit.lowering.constants import constants_on_grid_of
from qhyvit.lowering.lower import lower, quantized_file
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Options, Problem, Solution
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.fakequant import FakeQuant
from qhyvit.sim.partial import partial
from qhyvit.sim.run import Executor, Hook
from qhyvit.stages.calibration import options_within
from qhyvit.stages.problem import problem_of as stage_problem
from qhyvit.sweep.jobs import Job
from qhyvit.targets import Target, target
from qhyvit.tasks.shared.accuracy import count
from qhyvit.verify.census import census
from qhyvit.verify.decide import simulated_codes
from qhyvit.work import FACTS, FLOAT, Work, default_preprocess
from qhyvit_device.board import peak_memory_mib
from qhyvit_device.preprocess import Preprocess, normalize, quantize

KEY = ("model", "row", "bits", "seed", "calibration_images", "counted", "set", "table")


@dataclass(frozen=True)
class TableRow:
    """One line of the table: a method with options, and whether it belongs to the ablation."""

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    deploy: bool = True
    profile: str = "integer"
    table: str = "methods"


NOT_LEARNED = {"learn": 0}
PLAIN = {"folds": "none", "bridge": False, "ridge": 0.0, "rounding": False, "bias": False, "int16_ms": 0, **NOT_LEARNED}
SCALE = {**PLAIN, "ends": "joint", "scheme": "symmetric"}
BRIDGE = {**PLAIN, "folds": "channel_scale", "bridge": True}
ROWS: dict[str, TableRow] = {
    "minmax": TableRow("minmax"),
    "percentile": TableRow("percentile"),
    "easyquant": TableRow("easyquant"),
    "fqvit": TableRow("fqvit", deploy=False),
    "fqvit, as TFLite has it": TableRow("fqvit", {"expressible": True}),
    "ptq4vit": TableRow("ptq4vit", deploy=False),
    "ptq4vit, uniform codes": TableRow("ptq4vit", {"twin": False}),
    "repqvit": TableRow("repqvit", deploy=False),
    "repqvit, as TFLite has it": TableRow("repqvit", {"expressible": True}),
    "hyq": TableRow("hyq", deploy=False),
    "hyq, as TFLite has it": TableRow("hyq", {"expressible": True}),
    "qhyvit": TableRow("qhyvit"),
    "qhyvit, cpu profile": TableRow("qhyvit", profile="cpu"),
    "scale": TableRow("qhyvit", SCALE, table="ablation"),
    "+ granularity": TableRow("qhyvit", {**SCALE, "folds": "channel_scale"}, table="ablation"),
    "+ scheme": TableRow("qhyvit", {**SCALE, "folds": "channel_scale", "scheme": "search"}, table="ablation"),
    "+ bridge blocks": TableRow("qhyvit", {**BRIDGE, "ends": "joint"}, table="ablation"),
    "+ independent ends": TableRow("qhyvit", BRIDGE, table="ablation"),
    "+ SiLU split": TableRow("qhyvit", {**BRIDGE, "folds": "channel_scale,silu_split"}, table="ablation"),
    "+ stream scale": TableRow("qhyvit", {**BRIDGE, "folds": "all"}, table="ablation"),
    "+ int16 softmax": TableRow("qhyvit", {**BRIDGE, "folds": "all", "int16_ms": 0.2}, table="ablation"),
    "+ bias correction": TableRow("qhyvit", {**NOT_LEARNED, "ridge": 0.0, "rounding": False}, table="ablation"),
    "+ careful rounding": TableRow("qhyvit", {**NOT_LEARNED, "ridge": 0.0}, table="ablation"),
    "+ ridge regression": TableRow("qhyvit", NOT_LEARNED, table="ablation"),
    "+ learned scales": TableRow("qhyvit", {}, table="ablation"),
}


@dataclass
class Setup:
    """Everything that does not depend on the method."""

    work: Work
    how: Preprocess
    calibration: np.ndarray
    pixels: np.ndarray
    classes: np.ndarray
    float_logits: np.ndarray
    sets: Mapping[str, slice]


def target_of(profile: str) -> Target:
    """LiteRT, with float where that is faster (``cpu``) or without."""
    return target(integer=profile == "integer")


def _setup(args: argparse.Namespace, seed: int) -> Setup:
    work = Work(args.work)
    with files.lock(args.work / "lock"):
        stages.export(work, ModelConfig(args.model, args.weights, random_weights(args.model, args.weights)))
    facts = work.json(FACTS)
    shape = facts["input_shape"]
    how = data.preprocess_for(args.images, default_preprocess(facts), None)
    drawn = data.calibration_images(args.images, args.count, seed)
    test = data.preprocess_for(args.evaluate[0], default_preprocess(facts), args.resize_mode)
    sets = ranked_sets(args.evaluate, args.labels, facts["classes"])
    every = [*sets.values()][-1]
    hashes = data.hash_files(every.paths)
    if drawn.keys() & set(hashes):
        raise InputError(f"{len(drawn.keys() & set(hashes))} images are in both folders: "
                         "calibration and evaluation must differ")  # fmt: skip
    pixels = pixels_of(every.paths, shape, test)
    cache = args.work / f"float-{data.combined_hash(hashes)[:16]}-{test.mode}.npy"
    with files.lock(args.work / "lock"):
        if not cache.is_file():
            np.save(cache, logits_of(work.read(FLOAT), pixels, test))
    calibration = normalize(pixels_of([*drawn.values()], shape, how), how)
    ends = [0, *accumulate(len(found.paths) for name, found in sets.items() if name != ALL)]
    spans = dict(zip(sets, map(slice, [*ends[:-1], 0], [*ends[1:], ends[-1]]), strict=False))
    return Setup(work, test, calibration, pixels, every.truth, np.load(cache), spans)


def simulated(
    graph: Graph, quants: Mapping[str, TensorQuant], pixels: np.ndarray, how: Preprocess
) -> np.ndarray:  # fmt: skip
    """Logits of the fake-quantized graph."""
    executor, hook = Executor(constants_on_grid_of(graph, quants)), cast("Hook", FakeQuant(quants))
    with torch.no_grad():
        found = [
            executor.rows(torch.from_numpy(normalize(pixels[i : i + 4], how)), hook)
            for i in track(range(0, len(pixels), 4), "simulate", disable=not sys.stderr.isatty())
        ]
    return torch.cat(found).double().numpy()


def as_the_file(typed: Graph, pixels: np.ndarray, how: Preprocess) -> np.ndarray:
    """Logits by the file's own arithmetic, without running it."""
    entry, end = (typed.tensors[t].quantization for t in (typed.inputs[0], typed.outputs[0]))
    assert entry is not None
    assert end is not None
    codes = (quantize(p, how, entry.scale[0], entry.zero_point, "int8")[None] for p in pixels)
    steps = simulated_codes(typed, list(track(codes, "simulate", len(pixels), disable=not sys.stderr.isatty())))
    return (steps - end.zero_point) * np.float64(end.scale[0])


def mean_sqnr(solution: Solution, images: torch.Tensor) -> float:
    """Mean over all quantized activations of their SQNR in the quantized network, dB."""
    graph, quants = solution.graph, solution.tensors
    ids = [t.id for t in graph.activations() if t.name in quants]
    with torch.no_grad():
        exact = Executor(graph).run(images, None, ids)
        rough = Executor(constants_on_grid_of(solution.shipped, quants)).run(images, FakeQuant(quants), ids)
    ratios = []
    for t in ids:
        signal, noise = float((exact[t] ** 2).sum()), float(((exact[t] - rough[t]) ** 2).sum())
        if signal > 0 and noise > 0:
            ratios.append(10 * np.log10(signal / noise))
    return float(np.mean(ratios))


def problem_of(setup: Setup, row: TableRow, how: MethodConfig) -> tuple[Problem, Options]:
    """What a build gives the row's method: the profile too, which it places float nodes by."""
    aim, bits = target_of(row.profile), how.activation_bits
    problem = stage_problem(setup.work, setup.calibration, int16=bits == 8, seed=how.seed, target=aim,
                            bits=bits, int4=how.has_int4, size=how.size)  # fmt: skip
    return problem, options_within(how.parsed[1], aim, int16=bits == 8, bits=bits)


def one(args: argparse.Namespace, name: str, seed: int) -> list[dict[str, Any]]:
    """Rows of one run."""
    row = ROWS[name]
    how = MethodConfig(row.method, row.options, seed, args.bits, args.size)
    setup = _setup(args, seed)
    torch.manual_seed(seed)
    problem, options = problem_of(setup, row, how)
    started = time.process_time()
    solution = method(row.method).search(problem, options)
    seconds = time.process_time() - started
    memory = (peak_memory_mib() or 0.0) / 1024
    base = {
        "model": model_name(args.model), "table": args.table or row.table, "row": name, "bits": bits_name(args),
        "seed": seed, "calibration_images": args.count, "cpu_seconds": f"{seconds:.0f}", "peak_gib": f"{memory:.2f}",
        "sqnr_db": f"{mean_sqnr(solution, problem.images[:8]):.2f}", "folds": len(solution.folds),
    }  # fmt: skip
    logits: dict[str, np.ndarray] = {}
    ways = _ways(args, name)
    plan = QuantPlan(solution.tensors, row.method, profile=row.profile, int16=solution.int16)
    model = quantized_file(solution.shipped, plan) if f"deployed {row.profile}" in ways else b""
    if "full" in ways and row.method == "qhyvit" and how.activation_bits == 8:
        logits["full"] = as_the_file(lower(solution.shipped, plan).graph, setup.pixels, setup.how)
    elif "full" in ways:
        logits["full"] = simulated(solution.shipped, solution.tensors, setup.pixels, setup.how)
    if "partial" in ways:
        logits["partial"] = simulated(*partial(solution.shipped, solution.tensors), setup.pixels, setup.how)
    if model:
        logits[f"deployed {row.profile}"] = logits_of(model, setup.pixels, setup.how)
        base |= _kept(model, kept_file(args, name, seed))
    return [
        {**base, "counted": way, "set": named, **_score(setup, found, span), **_beside(logits, way, span)}
        for way, found in logits.items() for named, span in setup.sets.items()
    ]  # fmt: skip


def kept_file(args: argparse.Namespace, name: str, seed: int) -> Path:
    """Where the work directory keeps the file of a run, for the benchmarks that take its time."""
    return args.work / "files" / f"{name}, {bits_name(args)}, {args.count} images, seed {seed}.tflite".replace(" ", "_")


def _kept(model: bytes, place: Path) -> dict[str, Any]:
    """What is in the file, which is written."""
    place.parent.mkdir(exist_ok=True)
    files.write_bytes(place, model)
    looked = census(model)
    return {"size_bytes": len(model), "ops": looked.op_count, "float_tensors": len(looked.float_tensors),
            "file_sha256": files.sha256(model)}  # fmt: skip


def _beside(logits: Mapping[str, np.ndarray], way: str, span: slice) -> dict[str, str]:
    """Share of images on which the full simulation and the file decide alike."""
    if not way.startswith("deployed") or "full" not in logits:
        return {}
    same = (logits[way][span].argmax(1) == logits["full"][span].argmax(1)).mean()
    return {"same_as_full_percent": f"{100 * float(same):.2f}"}


def _score(setup: Setup, logits: np.ndarray, span: slice) -> dict[str, str]:
    truth, floating = setup.classes[span], setup.float_logits[span]
    found, plain = count(logits[span], truth, floating), count(floating, truth)
    n = found.images
    return {
        "images": str(n), "top1_percent": f"{100 * found.top1 / n:.2f}",
        "float_top1_percent": f"{100 * plain.top1 / n:.2f}",
        "top5_percent": f"{100 * found.top5 / n:.2f}", "agreement_percent": f"{100 * (found.agree or 0) / n:.2f}",
        "gained": str(found.gained), "lost": str(found.lost), "p_mcnemar": f"{found.p_value or 0:.3g}",
    }  # fmt: skip


def bits_name(args: argparse.Namespace) -> str:
    """``8``, or ``w4a8 2.1MB``: the bits' column."""
    return f"{args.bits} {args.size}" if args.size else args.bits


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name of the zoo, or FILE.py:FUNCTION")
    parser.add_argument("--weights", type=Path, help="none: those that the model has, or random ones")
    add_images(parser)
    parser.add_argument("--work", type=Path, required=True, help="work directory for the export")
    parser.add_argument("--count", type=int, default=128, help="calibration images")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--bits", default="8", help="4 to 8, or w4a8")
    parser.add_argument("--size", help="largest file of w4a8, such as 2.1MB")
    parser.add_argument("--rows", default="all", help=f"all, methods, ablation, or names with ';': {'; '.join(ROWS)}")
    parser.add_argument("--table", help="which table the rows are for; default: methods or ablation, as the row is")
    parser.add_argument("--counted", default="partial,full,deployed", help="ways to count, with commas")
    add_options(parser, "runs", "accuracy.csv")
    return parser


def _named(wanted: str) -> list[str]:
    if wanted in ("all", "methods", "ablation"):
        return [name for name, row in ROWS.items() if wanted in ("all", row.table)]
    return [name.strip() for name in wanted.split(";")]


def _ways(args: argparse.Namespace, name: str) -> list[str]:
    """What the rows of a run will be called."""
    row = ROWS[name]
    asked = [w for w in args.counted.split(",") if w != "deployed" and row.table == "methods"]
    deployed = "deployed" in args.counted and row.deploy and (args.bits in ("8", W4A8) or row.profile == "integer")
    return [*asked, f"deployed {row.profile}"] if deployed else asked


def one_of(argv: list[str], name: str, seed: int) -> list[dict[str, Any]]:
    """Rows of one run of a command line, in a process of its own."""
    return one(_parser().parse_args(argv), name, seed)


def main() -> None:
    """Command line; exit code 1 where a run failed."""
    args = _parser().parse_args()
    tasks = [
        (name, seed) for seed in (int(s) for s in args.seeds.split(",")) for name in _named(args.rows)
        if args.again or not _have(args, name, seed)
    ]  # fmt: skip
    jobs = [
        Job(f"row {name!r}, seed {seed}", "benchmarks.accuracy:one_of",
            {"argv": sys.argv[1:], "name": name, "seed": seed}, {"row": name, "seed": seed})
        for name, seed in tasks
    ]  # fmt: skip

    def take(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        write_rows(args.out, rows, KEY)

    sys.exit(0 if run_jobs("runs", jobs, args.jobs, take) else 1)


def _have(args: argparse.Namespace, name: str, seed: int) -> bool:
    table = args.table or ROWS[name].table
    run = {"model": model_name(args.model), "table": table, "row": name, "bits": bits_name(args), "seed": seed}
    key = {**run, "calibration_images": args.count}
    return all(have_rows(args.out, {**key, "counted": way}) for way in _ways(args, name))


if __name__ == "__main__":
    main()
