"""Hybrids and efficient networks of timm through the default method: built and verified, or refused with the reason.

Random weights with every 1-D parameter drawn, generated images, a small calibration: what is shown is that the method
takes the network, that the file computes what was simulated, and how near it is to the float file on other images.
Each model is a process of its own; a row is written as soon as it ends, and a second call makes only what is missing.
Example:

    python -m benchmarks.own_models --models all
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._files import have_rows, write_rows
from benchmarks._jobs import add_options, run_jobs
from benchmarks.coverage import images_into
from qhyvit import data, stages
from qhyvit.config import DataConfig, MethodConfig, ModelConfig
from qhyvit.errors import QhyvitError
from qhyvit.evaluation import logits_of
from qhyvit.models.shared.source import TIMM
from qhyvit.sweep.jobs import Job
from qhyvit.work import FACTS, FLOAT, MODEL, VERIFY, Work, default_preprocess, input_shape
from qhyvit_device.preprocess import images_in

CALIBRATION, CHECKED, CLASSES, SEED, MODE = 8, 8, 10, 1, "squash"
OPTIONS = {"rounds": 2, "learn": 1, "search_images": 8}
KEY = ("model", "input")
# pixels of the input: 128 where the network takes any size, else its own
MODELS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys((
        "convformer_s18", "convnext_atto", "caformer_s18", "edgenext_small", "edgenext_x_small", "edgenext_xx_small",
        "efficientnet_lite0", "efficientvit_b0", "efficientvit_b1", "efficientvit_b2", "fastvit_mci0", "fastvit_sa12",
        "fastvit_t8", "ghostnetv2_100", "hgnetv2_b0", "mobilenetv3_small_100", "mobilenetv4_conv_small",
        "mobilenetv4_hybrid_large", "mobilenetv4_hybrid_medium", "mobileone_s0", "nextvit_small", "poolformer_s12",
        "pvt_v2_b0", "repghostnet_050", "repvit_m0_9", "repvit_m1_1", "shvit_s1", "starnet_s1", "tiny_vit_5m_224",
        "tiny_vit_11m_224", "tiny_vit_21m_224",
    ), (128,)),
    **dict.fromkeys((
        "coat_lite_tiny", "coatnet_nano_rw_224", "deit_tiny_distilled_patch16_224", "efficientvit_m0",
        "efficientvit_m2", "efficientvit_m5", "levit_128s", "levit_conv_128s", "swiftformer_xs",
        "swin_tiny_patch4_window7_224", "visformer_tiny", "vit_tiny_patch16_224", "xcit_tiny_12_p16_224",
    ), (224,)),
    "crossvit_9_240": (240,),
    **dict.fromkeys(("botnet26t_256", "maxvit_nano_rw_256", "maxxvit_rmlp_nano_rw_256"), (256,)),
    "mobilevitv2_050": (192, 384),
}  # fmt: skip


def one(model: str, size: int, place: Path) -> dict[str, Any]:
    """The row of one model; ``place`` is an empty folder."""
    images, work, started = images_into(place / "images"), Work(place / "work"), time.monotonic()
    row: dict[str, Any] = {"model": model, "input": size, "status": "refused"}
    try:
        source = ModelConfig(f"{TIMM}{model}", None, True, CLASSES, size)
        stages.export(work, source, SEED, images)
        row["export_s"] = f"{time.monotonic() - started:.0f}"
        stages.calibrate(work, DataConfig(images, CALIBRATION, MODE), MethodConfig("qhyvit", OPTIONS, SEED))
        stages.convert(work)
        stages.verify(work, images, CHECKED, SEED, MODE)
        row |= {"status": "built", **_verdict(work), **_beside_float(work, images)}
    except QhyvitError as error:
        row["reason"] = " ".join(str(error).split())
    return {**row, "all_s": f"{time.monotonic() - started:.0f}"}


def _verdict(work: Work) -> dict[str, Any]:
    verdict = work.json(VERIFY)
    failed = "; ".join(c["name"] for c in verdict["checks"] if not c["passed"])
    census = verdict["census"]
    float_ops = sum(n for op, n in census["ops"].items() if op.rpartition(":")[2].startswith("FLOAT"))
    return {"verified": "yes" if verdict["passed"] else failed, "ops": census["op_count"], "float_ops": float_ops}


def _beside_float(work: Work, images: Path) -> dict[str, Any]:
    """Agreement of decisions, and the mean correlation of outputs, on the images that calibration did not use."""
    facts, plan = work.json(FACTS), stages.plan_of(work)
    paths = images_in(images)
    fresh = [p for p, h in zip(paths, data.hash_files(paths), strict=True) if h not in plan.image_hashes]
    how = data.preprocess_for(images, default_preprocess(facts), MODE)
    pixels = data.load_pixels(fresh, input_shape(facts), how)
    floats, integers = (logits_of(work.read(name), pixels, how) for name in (FLOAT, MODEL))
    agreed = int((floats.argmax(1) == integers.argmax(1)).sum())
    correlations = [np.corrcoef(a, b)[0, 1] if np.ptp(b) else 0.0 for a, b in zip(floats, integers, strict=True)]
    return {"agreement": f"{agreed}/{len(fresh)}", "correlation": f"{np.mean(correlations):.4f}"}


def one_of(model: str, size: int) -> dict[str, Any]:
    """The row of one model, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return one(model, size, Path(folder))


def main() -> None:
    """Command line; exit code 1 where a model failed without a reason of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="all", help="all, or names with commas")
    add_options(parser, "models", "own_models.csv")
    args = parser.parse_args()
    wanted = list(MODELS) if args.models == "all" else args.models.split(",")
    if unknown := [name for name in wanted if name not in MODELS]:
        parser.error(f"not in the table: {', '.join(unknown)}")
    rows = [{"model": name, "input": size} for name in wanted for size in MODELS[name]]
    missing = [row for row in rows if args.again or not have_rows(args.out, row)]
    jobs = [
        Job(f"{row['model']} {row['input']}", "benchmarks.own_models:one_of",
            {"model": row["model"], "size": row["input"]}, row)
        for row in missing
    ]  # fmt: skip

    def take(row: dict[str, Any]) -> None:
        print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        write_rows(args.out, [row], KEY)

    sys.exit(0 if run_jobs("own models", jobs, args.jobs, take) else 1)


if __name__ == "__main__":
    main()
