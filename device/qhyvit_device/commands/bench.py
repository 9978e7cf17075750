"""``bench``: latency, memory and the machine's state, of several models in turn."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from qhyvit_device import files
from qhyvit_device.commands.shared.arguments import count, none_or_more, numbers, several_threads, time
from qhyvit_device.commands.shared.command import Command


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", type=Path, nargs="+", help="bundles or .tflite files, compared with the first one")
    parser.add_argument("--runs", type=count, default=50, help="least number of inferences of each model (default 50)")
    parser.add_argument("--seconds", type=time, default=5.0, help="least time for each model (default 5)")
    parser.add_argument("--warmup", type=none_or_more, default=5, help="inferences before any is timed (default 5)")
    parser.add_argument(
        "--turn",
        type=count,
        default=1,
        metavar="N",
        help="inferences before the next model's turn; at 1 (default) models find each other's data in the caches",
    )
    parser.add_argument("--threads", type=several_threads, default=(1,),
                       help="numbers of interpreter threads to measure with, with commas (default 1)")  # fmt: skip
    parser.add_argument("--cpus", type=numbers, default=(), help="numbers of the processors to use, with commas")
    parser.add_argument("--sustained", type=time, default=0.0, metavar="MINUTES", help="then run on for MINUTES")
    parser.add_argument("--mlperf", action="store_true", help="single stream: at least 1024 runs and 60 s; p90 counts")
    parser.add_argument("--profile-ops", action="store_true", help="measure the time of each op of each model")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print all samples as JSON, or to FILE")


def _run(args: argparse.Namespace) -> int:
    from qhyvit_device import report
    from qhyvit_device.bench import MLPERF_RUNS, MLPERF_SECONDS, BenchSettings, bench, write_json
    from qhyvit_device.profile import profile

    target = None if args.json in (None, "-") else Path(args.json)
    if target is not None:
        files.check_target(target)
    runs, seconds = (MLPERF_RUNS, MLPERF_SECONDS) if args.mlperf else (args.runs, args.seconds)
    results = []
    for threads in args.threads:
        settings = BenchSettings(runs, seconds, args.warmup, threads, args.cpus, args.turn)
        results.append(
            bench(
                args.models, settings, minutes=args.sustained, memory=not args.no_memory, progress=report.progress
            )
        )  # fmt: skip
        if args.profile_ops:
            for model in results[-1]["models"]:
                model.update(asdict(profile(Path(model["file"]), threads)))
    found = {"benches": results, "mlperf": args.mlperf}
    if args.json == "-":
        print(json.dumps(found))
        return 0
    if target is not None:
        write_json(target, found)
    for result in results:
        print(report.table(result, mlperf=args.mlperf))
    return 0


COMMAND = Command("bench", "measure latency, memory and the machine's state; models run in turn", _options, _run)
