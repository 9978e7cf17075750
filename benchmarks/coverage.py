"""Every variant of every family through all stages to a verified integer file, with random weights.

Each variant is a process of its own; a row is written as soon as it ends, and a second call makes only what is missing.
Ranges are min-max: what is shown is that the graph converts and that the file computes what was simulated. Example:

    python -m benchmarks.coverage --variants all
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._files import have_rows, write_rows
from benchmarks._jobs import add_options, run_jobs
from benchmarks.demo.images import draw_image
from qhyvit import stages
from qhyvit.config import DataConfig, MethodConfig, ModelConfig
from qhyvit.models import all_families
from qhyvit.sweep.jobs import Job
from qhyvit.work import FACTS, VERIFY, Work

IMAGES, CALIBRATION, CHECKED = 24, 8, 16
SEED = 1


def images_into(folder: Path) -> Path:
    """Generated pictures: nothing has to be unpacked or fetched."""
    folder.mkdir(exist_ok=True)
    for i in range(IMAGES):
        draw_image(i % 10, np.random.default_rng(i), 256).save(folder / f"{i:02d}.png")
    return folder


def one(variant: str, place: Path) -> dict[str, Any]:
    """The row of one variant; ``place`` is an empty folder."""
    images, work = images_into(place / "images"), Work(place / "work")
    started = time.monotonic()
    stages.export(work, ModelConfig(variant, random_weights=True), SEED)
    exported = time.monotonic() - started
    stages.calibrate(work, DataConfig(images, CALIBRATION, "squash"), MethodConfig("minmax", seed=SEED))
    stages.convert(work)
    stages.verify(work, images, CHECKED, SEED, "squash")
    verdict, facts = work.json(VERIFY), work.json(FACTS)
    census = verdict["census"]
    kinds: Counter[str] = Counter()
    for op, n in census["ops"].items():
        kinds[op.rpartition(":")[2]] += n
    float_ops = sum(n for kind, n in kinds.items() if kind.startswith("FLOAT"))
    builtin = ", ".join(f"{n} {op}" for op, n in sorted(census["not_delegated"].items()))
    decided = verdict["decisions"]["litert"]
    return {
        "variant": variant, "family": facts["family"], "input": facts["input_shape"][0], "ops": census["op_count"],
        "int8_ops": kinds["INT8"], "int16_ops": kinds["INT16"], "float_ops": float_ops,
        "float_tensors": len(census["float_tensors"]), "partitions": census["partitions"], "builtin": builtin,
        "size_mb": f"{census['size_bytes'] / 1e6:.2f}", "export_s": f"{exported:.0f}",
        "all_s": f"{time.monotonic() - started:.0f}", "float_error": f"{facts['float_error']:.1e}",
        "decided_alike": f"{decided['simulation_agrees']}/{decided['images']}",
        "verified": "yes" if verdict["passed"] else "; ".join(c["name"] for c in verdict["checks"] if not c["passed"]),
    }  # fmt: skip


def one_of(variant: str) -> dict[str, Any]:
    """The row of one variant, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return one(variant, Path(folder))


def main() -> None:
    """Command line; exit code 1 where a variant is not verified."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", default="all", help="all, or names with commas")
    add_options(parser, "variants", "coverage.csv")
    args = parser.parse_args()
    known = [v for f in all_families().values() for v in f.variants]
    wanted = known if args.variants == "all" else args.variants.split(",")
    missing = [v for v in wanted if args.again or not have_rows(args.out, {"variant": v})]
    jobs = [Job(v, "benchmarks.coverage:one_of", {"variant": v}, {"variant": v}) for v in missing]
    unverified = []

    def take(row: dict[str, Any]) -> None:
        if row["verified"] != "yes":
            unverified.append(row["variant"])
        print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        write_rows(args.out, [row], ("variant",))

    all_ran = run_jobs("coverage", jobs, args.jobs, take)
    sys.exit(0 if all_ran and not unverified else 1)


if __name__ == "__main__":
    main()
