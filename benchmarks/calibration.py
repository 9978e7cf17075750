"""What ``qhyvit calibrate`` costs: seconds by phase, and peak memory, on a machine left to itself. Example:

python -m benchmarks.calibration mobilevitv2_075 --weights W.safetensors --images train/ --work build/v2
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path
from typing import Any

from benchmarks._files import RESULTS, random_weights, write_rows
from qhyvit import memory, stages
from qhyvit.config import DataConfig, MethodConfig, ModelConfig
from qhyvit.work import PLAN, Work


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
    memory.share_one_heap()  # as the command line does

    clock = Clock()
    work = Work(args.work, progress=clock)
    stages.export(work, ModelConfig(args.model, args.weights, random_weights(args.model, args.weights)))
    (work.folder / PLAN).unlink(missing_ok=True)  # an earlier run's, which would be taken
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, time.monotonic()
    clock("observe", 0.0)
    clock.seconds.clear()  # the export's
    stages.calibrate(work, DataConfig(args.images, args.count), MethodConfig(args.method, seed=args.seed))
    total = time.monotonic() - started
    clock("end", 1.0)
    base: dict[str, Any] = {
        "model": args.model, "method": args.method, "calibration_images": args.count, "seed": args.seed,
        "cores": len(os.sched_getaffinity(0)),
    }  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = [{**base, "phase": phase, "seconds": f"{s:.1f}"} for phase, s in clock.seconds.items() if s >= 0.05]
    rows.append({**base, "phase": "all", "seconds": f"{total:.1f}", "peak_gib": f"{peak:.2f}",
                 "before_gib": f"{before:.2f}"})  # fmt: skip
    for row in rows:
        print(f"{row['phase']:20s} {row['seconds']:>8s} s")
    print(f"peak memory {peak:.2f} GiB, {before:.2f} before")
    write_rows(args.out, rows, ("model", "method", "calibration_images", "phase"))


if __name__ == "__main__":
    main()
