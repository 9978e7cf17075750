"""What a calibration costs: seconds by phase, and peak memory, of one search on a machine left to itself. Example:

python -m benchmarks.calibration mobilevitv2_075 --weights W.safetensors --images train/ --work build/v2
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks._files import RESULTS, pixels_of, random_weights, write_rows
from qhyvit import data, stages
from qhyvit.config import ModelConfig
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.work import FACTS, Work, default_preprocess
from qhyvit_device.preprocess import normalize


class Clock:
    """Adds up the time between progress reports by what they say is being done."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.label, self.since = "start", time.monotonic()

    def __call__(self, label: str, share: float) -> None:
        """See :data:`qhyvit.methods.shared.problem.Progress`."""
        now = time.monotonic()
        self.seconds[self.label] = self.seconds.get(self.label, 0.0) + now - self.since
        self.label, self.since = label, now


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="work directory for the export")
    parser.add_argument("--method", default="qhyvit")
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "calibration.csv")
    args = parser.parse_args()

    work = Work(args.work)
    stages.export(work, ModelConfig(args.model, args.weights, random_weights(args.model, args.weights)))
    facts = work.json(FACTS)
    how = data.preprocess_for(args.images, default_preprocess(facts), None)
    paths = [*data.calibration_images(args.images, args.count, args.seed).values()]
    pixels = pixels_of(paths, facts["input_shape"], how)
    graph, images = stages.float_graph(work), torch.from_numpy(normalize(pixels, how))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    clock, chosen, started = Clock(), method(args.method), time.monotonic()
    chosen.search(Problem(graph, images, seed=args.seed, progress=clock), chosen.defaults)
    total = time.monotonic() - started
    clock("end", 1.0)
    base: dict[str, Any] = {
        "model": args.model, "method": args.method, "calibration_images": args.count, "seed": args.seed,
        "cores": len(os.sched_getaffinity(0)),
    }  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = [{**base, "phase": phase, "seconds": f"{s:.1f}"} for phase, s in clock.seconds.items() if s >= 0.05]
    memory = {"peak_gib": f"{peak:.2f}", "before_gib": f"{before:.2f}"}
    rows.append({**base, "phase": "all", "seconds": f"{total:.1f}", **memory})
    for row in rows:
        print(f"{row['phase']:20s} {row['seconds']:>8s} s")
    print(f"peak memory {peak:.2f} GiB, {before:.2f} before")
    write_rows(args.out, rows, ("model", "method", "calibration_images", "phase"))


if __name__ == "__main__":
    main()
