"""Every variant for microcontrollers and Arm's Ethos-U, by the tools that prove it: TFLM's interpreter, and Vela.

Weights are random, ranges min-max, and GELUs stay what they are: what is shown is that the graph is built, that
TensorFlow Lite Micro computes it code for code, what Vela places on the NPU, and what it estimates. Beside it the file
that ai-edge-quantizer makes of the stock export. Each row is a job of its own; a second call makes only what is
missing. Example:

    python -m benchmarks.targets --variants all --targets tflm,ethos-u55-256,ethos-u65-256,ethos-u85-512
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._files import have_rows, write_rows
from benchmarks._jobs import add_options, run_jobs
from benchmarks.coverage import SEED, images_into
from benchmarks.stock import RECIPES, quantize, stock_export
from qhyvit import data, stages
from qhyvit.config import DataConfig, MethodConfig, ModelConfig, TargetConfig
from qhyvit.errors import QhyvitError
from qhyvit.models import all_families
from qhyvit.ops.shared.spec import Kernel
from qhyvit.stages.solved import solved
from qhyvit.sweep.jobs import Job
from qhyvit.targets import Target, target
from qhyvit.verify.agree import op_by_op
from qhyvit.verify.micro import run_micro
from qhyvit.verify.probe import MICRO
from qhyvit.verify.vela import compiled
from qhyvit.work import FACTS, FLOAT, MODEL, Work, default_preprocess, input_shape
from qhyvit_device.preprocess import normalize
from qhyvit_device.preprocess import quantize as input_codes
from qhyvit_device.runner import TfliteFile

TARGETS = ("tflm", "ethos-u55-256", "ethos-u65-256", "ethos-u85-512")
YARDSTICK = "timm/deit_tiny_patch16_224"  # Arm publishes one, simulated
OURS, RIVAL = "qhyvit", "ai-edge-quantizer"
KEY = ("variant", "file", "target")
CALIBRATION = 4


def exported(variant: str, place: Path) -> tuple[Work, Path]:
    """The work directory of a variant with its float file, and the folder of images."""
    work = Work(place / "work")
    stages.export(work, ModelConfig(variant, random_weights=True), SEED)
    return work, images_into(place / "images")


def fed(work: Work, images: Path, file: TfliteFile) -> tuple[torch.Tensor, list[np.ndarray]]:
    """One image as the float graph and as the file takes it."""
    facts = work.json(FACTS)
    how = data.preprocess_for(images, default_preprocess(facts), "squash")
    raw = data.load_pixels(sorted(images.iterdir())[-1:], input_shape(facts), how)
    scale, zero = file.input["quantization"]
    return torch.from_numpy(normalize(raw, how)), [input_codes(raw[0], how, scale, zero, "int8")[None]]


def ours(work: Work, images: Path, name: str) -> dict[str, Any]:
    """Our file for a target, and on TensorFlow Lite Micro how many of all codes are as simulated."""
    method, how = MethodConfig("minmax", {"fast_gelu": False}, SEED), DataConfig(images, CALIBRATION, "squash")
    stages.calibrate(work, how, method, TargetConfig(name))
    stages.convert(work)
    model, found = work.read(MODEL), target(name)
    row = on_target(model, found)
    if found.kernels is Kernel.TFLM and row["builds"] == "yes":
        pixels, codes = fed(work, images, TfliteFile(model))
        calibrated = solved(work)
        known = op_by_op(calibrated.folded, calibrated.lowered, model, pixels, codes, Kernel.TFLM, MICRO).ops.values()
        row |= {"codes": sum(o.compared for o in known), "equal_codes": sum(o.equal for o in known)}
    return row


def rival(variant: str, work: Work, images: Path, name: str) -> dict[str, Any]:
    """The stock export of a variant, statically quantized."""
    facts = work.json(FACTS)
    how = data.preprocess_for(images, default_preprocess(facts), "squash")
    raw = data.load_pixels(sorted(images.iterdir())[:CALIBRATION], input_shape(facts), how)
    model = quantize(stock_export(variant, None, input_shape(facts), SEED), RECIPES[0], raw, how)
    return on_target(model, target(name))


def on_target(model: bytes, found: Target) -> dict[str, Any]:
    """What the target's own tool says of a file."""
    row: dict[str, Any] = {"size_mb": f"{len(model) / 1e6:.2f}", "builds": "yes"}
    try:
        if found.kernels is Kernel.TFLM:
            file = TfliteFile(model)
            codes = np.zeros(file.input["shape"], file.input["dtype"])
            return row | {"arena_kib": f"{run_micro(model, [codes]).arena_bytes / 1024:.0f}"}
        npu = compiled(model, found)
    except QhyvitError as error:
        return row | {"builds": str(error)}
    reasons = sorted({f"{op}: {reason}" for op, _, reason in npu.refused})
    return row | {
        "npu": npu.on_npu, "cpu": npu.on_cpu, "reasons": "; ".join(reasons), "estimated_ms": npu.ms,
        "sram_kib": npu.sram_kib, "dram_kib": npu.dram_kib, "system": f"{npu.system}, {npu.memory}",
        "vela": npu.version,
    }  # fmt: skip


def rows_of(variant: str, names: list[str], kinds: list[str], place: str) -> list[dict[str, Any]]:
    """The rows of one variant: one export, a build for each target."""
    folder = Path(place) / variant.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    work, images = exported(variant, folder)
    found = []
    for kind in kinds:
        for name in names:
            made = ours(work, images, name) if kind == OURS else rival(variant, work, images, name)
            head = {"variant": variant, "file": kind, "target": name, "float_mb": f"{len(work.read(FLOAT)) / 1e6:.1f}"}
            found.append({**head, **made})
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", default="all", help="all (with DeiT-Tiny as a yardstick), or names with commas")
    parser.add_argument("--targets", default=",".join(TARGETS), help="names with commas")
    parser.add_argument("--files", default=OURS, help=f"{OURS}, {RIVAL}, or both with a comma")
    parser.add_argument("--work", type=Path, required=True, help="exports are kept here")
    add_options(parser, "variants", "targets.csv")
    args = parser.parse_args()
    known = [*(v for f in all_families().values() for v in f.variants), YARDSTICK]
    jobs = []
    for variant in known if args.variants == "all" else args.variants.split(","):
        for kind in args.files.split(","):
            missing = [name for name in args.targets.split(",")
                       if args.again or not have_rows(args.out, dict(zip(KEY, (variant, kind, name), strict=True)))]
            given = {"variant": variant, "names": missing, "kinds": [kind], "place": str(args.work)}
            jobs += [Job(f"{variant} {kind}", "benchmarks.targets:rows_of", given, given)] if missing else []

    def take(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            print(", ".join(f"{k} {str(v)[:80]}" for k, v in row.items()), flush=True)
        write_rows(args.out, rows, KEY)

    sys.exit(0 if run_jobs("targets", jobs, args.jobs, take) else 1)


if __name__ == "__main__":
    main()
