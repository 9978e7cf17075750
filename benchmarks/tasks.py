"""How much of float an integer file of any task keeps, and how right both are where labels are given.

Calibration and evaluation images never are the same, by hash: two folders are checked, one folder (``--held-out``) is
parted by the seed. ``ai-edge-quantizer`` among the methods is its static int8 recipe on the same float file and images.
Examples:

    python -m benchmarks.tasks families.py:edgeface_xs --task embed --weights edgeface_xs.safetensors --images train/ \\
        --count 64 --held-out 300 --profiles integer,cpu --seeds 0,1,2
    python -m benchmarks.tasks seg.py:Net --weights seg.safetensors --input-size 384x512 --images frames/ \\
        --evaluate test/images --labels test/labels --methods qhyvit,minmax,ai-edge-quantizer
    python -m benchmarks.tasks mobilevitv2_075 --weights W.safetensors --images train/ --evaluate val/ --count 128 \\
        --profiles integer,tflm,ethos-u65-256

A file for another target than LiteRT is counted in LiteRT here, whose kernels may differ from that target's own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._files import have_rows, model_name, ranked_images, write_rows
from benchmarks._jobs import add_options, run_jobs
from benchmarks.stock import RECIPES, quantize
from qhyvit import data, stages
from qhyvit.bundle import label_names
from qhyvit.config import DataConfig, MethodConfig, ModelConfig, TargetConfig
from qhyvit.errors import InputError
from qhyvit.evaluation import evaluated, logits_of
from qhyvit.labels import labelled_images
from qhyvit.sweep.jobs import Job
from qhyvit.targets import CPU, INTEGER
from qhyvit.tasks import task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.verify.census import census
from qhyvit.work import FACTS, FLOAT, MODEL, Work, default_preprocess, input_shape
from qhyvit_device.preprocess import images_in, load_input

KEY = ("model", "task", "input", "method", "profile", "seed", "calibration_images", "images")
RIVAL = "ai-edge-quantizer"


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


def _images(args: argparse.Namespace, seed: int, place: Path, facts: dict[str, Any]) -> tuple[Path, data.Labelled]:
    """The folder to calibrate on, and what is looked at; refuses images that are in both."""
    if args.held_out:
        calibration, rest = parted(args.images, args.count, args.held_out, seed)
        place.mkdir()
        for path in calibration:
            (place / path.name).write_bytes(path.read_bytes())
        return place, data.Labelled(rest, None)
    classes = None if args.class_map is None else tuple(map(int, args.class_map.split(",")))
    if facts["task"] == "classify":
        found = ranked_images(args.evaluate, args.labels, facts["classes"])
    else:
        found = labelled_images(args.evaluate, args.labels, task(facts["task"]), facts["classes"], classes,
                                label_names(args.label_names, facts["classes"]))  # fmt: skip
    if set(data.hash_files(images_in(args.images))) & set(data.hash_files(found.paths)):
        raise InputError("some images are in both folders: calibration and evaluation must differ")
    return args.images, found


def one(args: argparse.Namespace, method: str, profile: str, seed: int) -> dict[str, Any]:
    """The row of one build."""
    with tempfile.TemporaryDirectory() as place:
        work = Work(Path(place) / "work")
        model = ModelConfig.parse({"name": args.model, "weights": args.weights, "task": args.task,
                                   "input_size": args.input_size}, "the model")  # fmt: skip
        stages.export(work, model, seed, args.images)
        facts, float_model = work.json(FACTS), work.read(FLOAT)
        images, labelled = _images(args, seed, Path(place) / "images", facts)
        how = data.preprocess_for(images, default_preprocess(facts), args.resize_mode)
        shape, started = input_shape(facts), time.process_time()
        if method == RIVAL:
            drawn = [*data.calibration_images(images, args.count, seed).values()]
            made = quantize(float_model, RECIPES[0], data.load_pixels(drawn, shape, how), how)
        else:
            wanted = MethodConfig(method, seed=seed)
            target = TargetConfig(integer=profile == INTEGER) if profile in (INTEGER, CPU) else TargetConfig(profile)
            stages.calibrate(work, DataConfig(images, args.count, args.resize_mode), wanted, target)
            stages.convert(work)
            made = work.read(MODEL)
        seconds = time.process_time() - started
        both = [logits_of(m, (load_input(p, shape, how) for p in labelled.paths), how) for m in (float_model, made)]
        found = evaluated(task(facts["task"]), Layout.of_facts(facts["outputs"]), both[1], both[0], labelled.truth,
                          how.mode, CPU if profile == CPU else INTEGER)  # fmt: skip
        assert found.alike is not None
        own, plain = ({} if s is None else s.figures for s in (found.integer, found.floating))
        figures = "; ".join(f"{name} {plain[name]:.2f} to {own[name]:.2f}" for name in own)
        test = "" if found.paired is None or found.paired.agree is None else f"{100 * found.paired.agree:.2f}"
        looked = census(made)
        return {
            "model": model_name(args.model), "task": facts["task"], "input": "x".join(map(str, shape)),
            "method": method, "profile": profile, "seed": seed, "calibration_images": args.count,
            "images": len(labelled.paths), "as_float": f"{found.alike.reading:.4f}", "kept": found.alike.text,
            "float_to_integer": figures, "decided_alike_percent": test, "ops": looked.op_count,
            "float_tensors": len(looked.float_tensors), "size_bytes": looked.size_bytes,
            "cpu_seconds": f"{seconds:.0f}",
        }  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name, or FILE.py:FUNCTION")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--task", help="default: by the outputs")
    parser.add_argument("--input-size", help="S or HxW; default: the model's own")
    parser.add_argument("--images", type=Path, required=True, help="folder of images to calibrate on")
    parser.add_argument("--count", type=int, default=64, help="of them")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--evaluate", type=Path, help="folder of other images")
    where.add_argument("--held-out", type=int, default=0, help="so many other images of the same folder")
    parser.add_argument("--labels", type=Path, help="labels of --evaluate")
    parser.add_argument("--label-names", type=Path, help="names of the values, by which columns of labels go")
    parser.add_argument("--class-map", help="class of the label maps that each class is")
    parser.add_argument("--resize-mode", choices=("crop", "squash"), default="squash")
    parser.add_argument("--methods", default="qhyvit")
    parser.add_argument("--profiles", default=INTEGER, help="integer, cpu, or names of targets, with commas")
    parser.add_argument("--seeds", default="0")
    add_options(parser, "builds", "tasks.csv")
    return parser


def one_of(argv: list[str], method: str, profile: str, seed: int) -> dict[str, Any]:
    """The row of one build of a command line, in a process of its own."""
    return one(_parser().parse_args(argv), method, profile, seed)


def main() -> None:
    """Command line; exit code 1 where a build failed."""
    args = _parser().parse_args()
    runs = [
        (method, profile, int(seed)) for seed in args.seeds.split(",") for method in args.methods.split(",")
        for profile in args.profiles.split(",") if method != RIVAL or profile == INTEGER
    ]  # fmt: skip
    key = {"model": model_name(args.model), "calibration_images": args.count}
    key |= {} if args.task is None else {"task": args.task}
    jobs = [
        Job(f"{method}, {profile}, seed {seed}", "benchmarks.tasks:one_of", {"argv": sys.argv[1:], **run}, run)
        for method, profile, seed in runs for run in [{"method": method, "profile": profile, "seed": seed}]
        if args.again or not have_rows(args.out, {**key, **run})
    ]  # fmt: skip

    def take(row: dict[str, Any]) -> None:
        write_rows(args.out, [row], KEY)
        print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)

    if not run_jobs("tasks", jobs, args.jobs, take):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
