"""How near an embedding network's integer file is to float: the cosine of their outputs on images held out.

The images of one folder are shuffled by the seed; some calibrate, others are looked at, and none does both, by hash.
The build is the default one with the measure ``correlation``. Example:

    python -m benchmarks.embedding families.py:edgeface_xs --weights edgeface_xs_gamma06_fp16.safetensors \\
        --images train/ --seeds 0,1,2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._files import command_line, have_rows, model_name, write_rows
from benchmarks._jobs import add_options, run_jobs
from qhyvit import data, stages
from qhyvit.config import DataConfig, MethodConfig, ModelConfig, TargetConfig
from qhyvit.errors import InputError
from qhyvit.evaluation import logits_of
from qhyvit.sweep.jobs import Job
from qhyvit.tasks.embed import cosines
from qhyvit.work import FACTS, FLOAT, MODEL, Work, default_preprocess, input_shape
from qhyvit_device.preprocess import images_in

KEY = ("model", "profile", "method", "seed", "calibration_images", "images")


def parted(folder: Path, count: int, held_out: int, seed: int) -> tuple[list[Path], list[Path]]:
    """Images that calibrate and images to look at, no two with the same bytes.

    Raises:
        InputError: the folder holds too few.
    """
    different = {h: p for p in images_in(folder) for h in data.hash_files([p])}
    paths = list(different.values())
    if len(paths) < count + held_out:
        raise InputError(f"{folder} holds {len(paths)} different images, {count} + {held_out} are needed")
    order = np.random.default_rng(seed).permutation(len(paths))
    return [paths[i] for i in order[:count]], [paths[i] for i in order[count : count + held_out]]


def one(args: argparse.Namespace, profile: str, seed: int) -> dict[str, Any]:
    """The row of one build."""
    with tempfile.TemporaryDirectory() as place:
        calibration, looked_at = parted(args.images, args.count, args.held_out, seed)
        images, work = Path(place) / "images", Work(Path(place) / "work")
        images.mkdir()
        for path in calibration:
            (images / path.name).write_bytes(path.read_bytes())
        stages.export(work, ModelConfig(args.model, args.weights, task="embed"), seed, images)
        started = time.process_time()
        method = MethodConfig(args.method, seed=seed)
        stages.calibrate(work, DataConfig(images, args.count, args.resize_mode), method, TargetConfig(profile))
        seconds = time.process_time() - started
        stages.convert(work)
        facts = work.json(FACTS)
        how = data.preprocess_for(args.images, default_preprocess(facts), args.resize_mode)
        pixels = data.load_pixels(looked_at, input_shape(facts), how)
        found = cosines(*(logits_of(work.read(name), pixels, how) for name in (FLOAT, MODEL)))
        return {
            "model": model_name(args.model), "profile": profile, "method": args.method, "seed": seed,
            "calibration_images": args.count, "images": len(found), "cpu_seconds": f"{seconds:.0f}",
            "cosine_mean": f"{found.mean():.4f}", "cosine_percentile_1": f"{np.percentile(found, 1):.4f}",
            "cosine_least": f"{found.min():.4f}",
        }  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name, or FILE.py:FUNCTION")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="folder of images, no labels")
    parser.add_argument("--count", type=int, default=64, help="calibration images")
    parser.add_argument("--held-out", type=int, default=300, help="images to look at")
    parser.add_argument("--resize-mode", choices=("crop", "squash"), default="squash")
    parser.add_argument("--method", default="qhyvit")
    parser.add_argument("--profiles", default="integer,cpu")
    parser.add_argument("--seeds", default="0,1,2")
    add_options(parser, "builds", "embedding.csv")
    return parser


def one_of(argv: list[str], profile: str, seed: int) -> dict[str, Any]:
    """The row of one build of a command line, in a process of its own."""
    return one(_parser().parse_args(argv), profile, seed)


def main() -> None:
    """Command line; exit code 1 where a build failed."""
    args = _parser().parse_args()
    runs = [(profile, int(seed)) for seed in args.seeds.split(",") for profile in args.profiles.split(",")]
    key = {"model": model_name(args.model), "method": args.method, "calibration_images": args.count}
    jobs = [
        Job(f"{profile}, seed {seed}", "benchmarks.embedding:one_of",
            {"argv": sys.argv[1:], "profile": profile, "seed": seed}, {"profile": profile, "seed": seed})
        for profile, seed in runs
        if args.again or not have_rows(args.out, {**key, "profile": profile, "seed": seed, "images": args.held_out})
    ]  # fmt: skip

    def take(row: dict[str, Any]) -> None:
        print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        write_rows(args.out, [{**row, "command": command_line()}], KEY)

    sys.exit(0 if run_jobs("embedding", jobs, args.jobs, take) else 1)


if __name__ == "__main__":
    main()
