"""Every table of the documents made anew by one commit: ``make results DATA=images WEIGHTS=weights``.

Each step is a benchmark of its own, which keeps a row as soon as it has one. What today's commit has made already is
not made again, so that a run that was stopped goes on; a step that fails is told at the end and stops no other.
Steps that measure time run alone. ``DATA`` holds imagenet_train_1000, imagenet_val_650, imagenet_val_extra_300,
imagenette_160 and camvid_*; ``WEIGHTS`` mobilevitv2_075.safetensors and those of the tasks. Example:

    python -m benchmarks.make_results --data images --weights weights --only methods,stock
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._files import COMPARED, ROOT, commit

FAMILIES = ("efficientformer", "efficientformerv2", "mobile_former", "mobilevit", "mobilevitv2")
RIVALS = "minmax;percentile;easyquant;fqvit;fqvit, as TFLite has it;ptq4vit;ptq4vit, uniform codes;repqvit;" \
         "repqvit, as TFLite has it;hyq;hyq, as TFLite has it"  # fmt: skip
ON_TARGETS = "integer,tflm,ethos-u65-256"
DEPLOYED = ("--counted", "deployed")
BITS = ("--table", "bits", "--rows", "qhyvit", *DEPLOYED)


@dataclass(frozen=True)
class Step:
    """One call of a benchmark: its name among the steps, and the words behind ``python -m benchmarks.``."""

    name: str
    words: tuple[str, ...]


def steps(data: Path, weights: Path, work: Path) -> list[Step]:
    """All of them, in an order in which what one needs is there."""
    return [*_of_compared(data, weights, work), *_of_families(data, work), *_of_others(data, weights, work)]


def _of_compared(data: Path, weights: Path, work: Path) -> list[Step]:
    """Of the model on which methods are compared."""
    sets = [data / name for name in ("imagenet_val_650", "imagenet_val_extra_300")]
    ours = ("--weights", weights / f"{COMPARED}.safetensors", "--images", data / "imagenet_train_1000",
            "--evaluate", *sets, "--resize-mode", "squash")  # fmt: skip

    def accuracy(name: str, *words: object) -> Step:
        return Step(name, _words("accuracy", COMPARED, *ours, "--work", work / COMPARED, *words))

    return [
        accuracy("bits", *BITS, "--seeds", "0,1,2,3,4"),
        accuracy("bits", *BITS, "--bits", 6),
        *(accuracy("bits", *BITS, "--bits", "w4a8", "--size", size, "--seeds", "0,1,2") for size in ("2.5MB", "2.1MB")),
        Step("stock", _words("stock", COMPARED, *ours)),
        Step("stock", _words("front", COMPARED, *ours, "--work", work / COMPARED)),
        accuracy("methods", "--rows", f"{RIVALS};qhyvit", "--count", 32),
        accuracy("methods", "--rows", f"{RIVALS};qhyvit", "--count", 32, "--bits", 6, *DEPLOYED),
        accuracy("methods", "--rows", "qhyvit, cpu profile", *DEPLOYED),
        accuracy("ablation", "--rows", "ablation", "--count", 32),
    ]


def _of_families(data: Path, work: Path) -> list[Step]:
    """Of the trained model of each family that the repository has."""
    made = []
    for family in FAMILIES:
        model = f"{family}_imagenette"
        place = data / "imagenette_160"
        given = (f"benchmarks/families.py:{model}", "--weights", f"benchmarks/weights/{model}.safetensors", "--images",
                 place / "train", "--evaluate", place, "--labels", place / "labels_val.csv", "--resize-mode",
                 "squash")  # fmt: skip
        own = ("accuracy", *given, "--work", work / model, *DEPLOYED)
        made.append(Step("families", _words(*own, "--rows", "qhyvit;qhyvit, cpu profile", "--seeds", "0,1,2")))
        if family != "mobile_former":  # its stock int8 file aborts the process
            made.append(Step("families", _words("stock", *given)))
        made.append(Step("bits", _words(*own, *BITS, "--seeds", 0, "--bits", "w4a8")))
        made.append(Step("on_targets", _words(
            "tasks", *given[:9], "--task", "classify", "--count", 128, "--profiles", ON_TARGETS)))  # fmt: skip
    return made


def _of_others(data: Path, weights: Path, work: Path) -> list[Step]:
    """Of every variant, of other tasks, of times; and the tables themselves."""
    faces = ("--images", data / "imagenet_train_1000", "--count", 128, "--held-out", 300, "--profiles", "integer,cpu")
    streets = ("--weights", weights / "efficientvit_seg_b0_cityscapes.safetensors", "--images",
               data / "camvid_calibration", "--evaluate", data / "camvid_eval" / "images", "--labels",
               data / "camvid_eval" / "labels", "--class-map", "3,4,1,1,7,2,6,6,5,5,0,9,10,8,8,8,8,8,10")  # fmt: skip
    timed = ("--work", work / "latency", "--weights", weights)
    return [
        Step("coverage", _words("coverage")),
        Step("targets", _words("targets", "--variants", "all", "--work", work / "targets")),
        Step("own_models", _words("own_models", "--models", "all")),
        Step("tasks", _words("tasks", "benchmarks/families.py:edgeface_xs", "--task", "embed", "--weights",
                             weights / "edgeface_xs_gamma06_fp16.safetensors", *faces)),
        Step("tasks", _words("tasks", f"{weights / 'efficientvit_seg_b0.py'}:EfficientVitSegB0", "--input-size",
                             "384x512", *streets, "--methods", "qhyvit,minmax,ai-edge-quantizer")),
        *_attributes(data, weights, work / "attributes"),
        Step("on_targets", _words("tasks", COMPARED, "--weights", weights / f"{COMPARED}.safetensors", "--images",
                                  data / "imagenet_train_1000", "--task", "classify", "--evaluate",
                                  data / "imagenet_val_650", "--count", 128, "--profiles", ON_TARGETS)),
        Step("calibration", _words("calibration", COMPARED, "--weights", weights / f"{COMPARED}.safetensors",
                                   "--images", data / "imagenet_train_1000", "--work", work / COMPARED, "--count",
                                   128)),
        Step("objective", _words("objective", work / COMPARED, "--images", data / "imagenet_train_1000")),
        Step("variants", _words("variants", "--work", work / "variants")),
        Step("latency", _words("latency", *timed)),
        Step("latency", _words("latency", *timed, "--turn", 20)),
        Step("op_times", _words("op_times", "--work", work / "latency")),
        Step("instructions", _words("instructions", *timed)),
        Step("cards", _words("cards", "--data", data, "--work", work / "cards")),
        Step("tables", _words("plots")),
        Step("tables", _words("tables")),
    ]  # fmt: skip


def _attributes(data: Path, weights: Path, head: Path) -> list[Step]:
    """The head of attributes, and builds with it."""
    model = "mobilevitv2_075_attributes"
    build = ("tasks", f"benchmarks/families.py:{model}", "--task", "multilabel", "--weights",
             head / f"{model}.safetensors", "--images", data / "imagenet_train_1000", "--evaluate", data, "--labels",
             head / "attributes.csv")  # fmt: skip
    made = _words("attributes", "--data", data, "--weights", weights / f"{COMPARED}.safetensors", "--out", head)
    return [Step("tasks", made), *(Step("tasks", _words(*build, "--count", count)) for count in (64, 128))]


def _words(*words: object) -> tuple[str, ...]:
    return tuple(map(str, words))


def run(made: Sequence[Step]) -> list[Step]:
    """Run them one after another; those that failed."""
    failed = []
    for number, step in enumerate(made, 1):
        print(f"[{number} of {len(made)}] {step.name}: python -m benchmarks.{' '.join(step.words)}", flush=True)
        started = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{step.words[0]}", *step.words[1:]]
        if subprocess.run(command, check=False, cwd=ROOT).returncode:
            failed.append(step)
        print(f"[{number} of {len(made)}] {step.name}: {(time.monotonic() - started) / 60:.1f} minutes", flush=True)
    return failed


def main() -> None:
    """Command line; exit code 1 where a step failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the image folders")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "results", help="keeps what is made once")
    parser.add_argument("--only", help="names of steps, with commas")
    parser.add_argument("--list", action="store_true", help="the commands, and nothing else")
    args = parser.parse_args()
    made = steps(args.data.resolve(), args.weights.resolve(), args.work.resolve())
    wanted = args.only.split(",") if args.only else [step.name for step in made]
    unknown = sorted(set(wanted) - {step.name for step in made})
    if unknown:
        parser.error(f"no step {', '.join(unknown)}; there are {', '.join(dict.fromkeys(s.name for s in made))}")
    chosen = [step for step in made if step.name in wanted]
    if args.list:
        print("\n".join(f"{step.name}: python -m benchmarks.{' '.join(step.words)}" for step in chosen))
        return
    if commit().endswith("+"):
        parser.error("the code was changed since its commit: rows would name what nobody can check out; commit first")
    needed = (args.data / "imagenet_val_650", args.weights / f"{COMPARED}.safetensors")
    missing = [str(place) for place in needed if not place.exists()]
    if missing:
        parser.error(f"there is no {' and no '.join(missing)}: --data and --weights are the folders that hold them")
    failed = run(chosen)
    if failed:
        sys.exit(f"failed: {', '.join(step.name for step in failed)}; the same command goes on where it stopped")


if __name__ == "__main__":
    main()
