"""``qhyvit-device``: classify images, measure latency, check a bundle. Results to stdout, talk to stderr."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from qhyvit_device import __version__
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.preprocess import MODES, images_in
from qhyvit_device.runner import MOST_THREADS, Model
from qhyvit_device.terminal import complain, guarded, shown

if TYPE_CHECKING:
    from qhyvit_device.live import LiveModel

PROGRAM = "qhyvit-device"
MOST_TIME = 1e6  # seconds, minutes
EXAMPLES = """examples:
  qhyvit-device classify BUNDLE photo.jpg --top 3
  qhyvit-device classify BUNDLE folder/ --json
  qhyvit-device classify BUNDLE --watch incoming/ --json
  qhyvit-device bench BUNDLE float.tflite --threads 1,4 --json out.json
  qhyvit-device info BUNDLE
  qhyvit-device update BUNDLE NEW
"""


class _Parser(argparse.ArgumentParser):
    """One whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say it and end."""
        raise DeviceError(f"{message}; {self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Help and version; argparse passes over a stream that cannot be written."""
        (file or sys.stdout).write(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        PROGRAM, description="Run integer TFLite bundles on a device.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True)
    classify = commands.add_parser("classify", help="classify images", epilog=EXAMPLES,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    classify.add_argument("bundle", type=Path)
    classify.add_argument(
        "images", type=Path, nargs="*", help="files or folders of images or arrays (.npy); - is standard input"
    )
    watched = "new images of a folder, or camera, camera:1 (V4L2), picamera2; one line an image"
    classify.add_argument("--watch", metavar="SOURCE", help=watched)
    classify.add_argument("--frames", type=_none_or_more, default=0, help="end --watch after so many (default: never)")
    classify.add_argument("--top", type=_count, default=5, help="classes to show (default 5)")
    classify.add_argument("--resize-mode", choices=MODES, help="override how the bundle resizes images")
    classify.add_argument("--trust", choices=("always", "once"), default="always",
                          help="once: start the model in a process of its own first, which it may end")  # fmt: skip
    info = commands.add_parser("info", help="this machine; with BUNDLE: check it and run its self test")
    info.add_argument("bundle", type=Path, nargs="?")
    bench = _add_bench(commands)
    update = commands.add_parser("update", help="replace a bundle in one step, while programs use it")
    update.add_argument("folder", type=Path, help="folder of the bundle; the old one is kept as FOLDER.previous")
    update.add_argument("bundle", type=Path, nargs="?", help="the new bundle; its self test has to pass")
    update.add_argument("--downgrade", action="store_true", help="take a bundle that an older qhyvit made")
    update.add_argument("--back", action="store_true", help="exchange FOLDER for FOLDER.previous")
    for command in (classify, info, bench, update):
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    for command in (classify, info):
        command.add_argument("--threads", type=_threads, default=1, help="interpreter threads (default 1)")
        command.add_argument("--json", action="store_true", help="one JSON object to stdout")
    return parser


def _add_bench(commands: Any) -> argparse.ArgumentParser:
    bench: argparse.ArgumentParser = commands.add_parser(
        "bench", help="latency, memory and the machine's state; several models are interleaved", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    bench.add_argument("models", type=Path, nargs="+", help="bundle folders or .tflite files; compared with the first")
    bench.add_argument("--runs", type=_count, default=50, help="inferences at least (default 50)")
    bench.add_argument("--seconds", type=_time, default=5.0, help="for each model at least (default 5)")
    bench.add_argument("--warmup", type=_none_or_more, default=5, help="runs before (default 5)")
    bench.add_argument(
        "--turn",
        type=_count,
        default=1,
        metavar="N",
        help="inferences in a row: at 1 (default) models find each other's data in the caches",
    )
    bench.add_argument("--threads", type=_several_threads, default=(1,),
                       help="interpreter threads, with commas (default 1)")  # fmt: skip
    bench.add_argument("--cpus", type=_numbers, default=(), help="processors to stay on, with commas")
    bench.add_argument("--sustained", type=_time, default=0.0, metavar="MINUTES", help="then run on, without a pause")
    bench.add_argument("--mlperf", action="store_true", help="single stream: 1024 runs and 60 s at least, p90 counts")
    bench.add_argument("--profile-ops", action="store_true", help="time by op, of each model")
    bench.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    bench.add_argument("--json", nargs="?", const="-", metavar="FILE", help="all samples as JSON, to FILE or stdout")
    return bench


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas; none is negative, and each has at most nine digits."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: whole numbers with commas, like 1,4")
    return tuple(map(int, parts))


def _several_threads(text: str) -> tuple[int, ...]:
    found = _numbers(text)
    if not 1 <= min(found) <= max(found) <= MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r}: 1 to {MOST_THREADS}, with commas")
    return found


def _none_or_more(text: str, least: int = 0) -> int:
    try:
        (found,) = _numbers(text)
    except (ValueError, argparse.ArgumentTypeError):
        found = -1
    if found < least:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number, {least} or more")
    return found


def _count(text: str) -> int:
    return _none_or_more(text, 1)


def _threads(text: str) -> int:
    found = _several_threads(text)
    if len(found) > 1:
        raise argparse.ArgumentTypeError(f"{text!r}: one number")
    return found[0]


def _time(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= MOST_TIME:
        raise argparse.ArgumentTypeError(f"{text!r}: a number, 0 or more")
    return found


def _paths(given: Sequence[Path]) -> Iterator[Path]:
    for path in given:
        yield from images_in(path) if path.is_dir() else (path,)


def _classify(args: argparse.Namespace) -> int:
    from qhyvit_device.live import LiveModel
    from qhyvit_device.sources import stdin_image
    from qhyvit_device.trial import load as tried

    if bool(args.images) == bool(args.watch):
        raise DeviceError("give images to classify, or --watch SOURCE")
    load = tried if args.trust == "once" else Model.load
    if args.watch:
        return _watch(args, LiveModel(args.bundle, args.threads, load))
    model = load(args.bundle, args.threads)
    results: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    for path in list(_paths(args.images)):
        try:
            image = stdin_image() if str(path) == "-" else path
            found = model.classify(image, args.top, args.resize_mode)
        except InputError as error:  # of this picture alone
            errors.append({"image": str(path), "error": str(error)})
            continue
        results.append({"image": str(path), "predictions": [asdict(p) for p in found]})
        if not args.json:
            print(shown(path))
            for p in found:
                print(f"  {100 * p.probability:5.1f} %  {shown(p.label)} ({p.index})")
    if args.json:
        print(json.dumps({"model": model.manifest.model, "results": results, "errors": errors}))
    for failed in errors:
        complain(PROGRAM, failed["error"])
    return 0 if not errors else 1 if results else 2


def _watch(args: argparse.Namespace, live: LiveModel) -> int:
    """One line an image, flushed, for people or (--json) for programs; what cannot be read is said and passed over."""
    from qhyvit_device.sources import frames

    source = frames(args.watch)
    refused: DeviceError | None = None
    print(f"watching {shown(args.watch)}; Ctrl-C ends it", file=sys.stderr, flush=True)
    for count, (name, image) in enumerate(source, 1):
        try:
            if isinstance(image, DeviceError):
                raise image
            started = time.perf_counter()
            found = live.classify(image, args.top, args.resize_mode)
            ms = 1000 * (time.perf_counter() - started)
        except InputError as error:
            complain(PROGRAM, str(error))
        else:
            if args.json:
                line = json.dumps({"image": name, "ms": round(ms, 2), "predictions": [asdict(p) for p in found]})
            else:
                line = f"{shown(name)}  " + ", ".join(f"{shown(p.label)} {100 * p.probability:.0f} %" for p in found)
            print(line, flush=True)
        del image  # two large ones would be there at once
        if live.refused is not refused and live.refused is not None:
            complain(PROGRAM, f"{live.refused}; the bundle before is used")
        refused = live.refused
        if count == args.frames:
            break
    return 0


def _info(args: argparse.Namespace) -> int:
    from qhyvit_device.info import describe, environment

    facts = environment() if args.bundle is None else describe(args.bundle, args.threads)
    if args.json:
        print(json.dumps(facts))
        return 0
    for key, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{key.replace('_', ' '):20s} {shown(text)}")
    return 0


def _update(args: argparse.Namespace) -> int:
    from qhyvit_device.update import go_back, update

    if (args.bundle is None) != args.back:
        raise DeviceError("give a bundle, or --back")
    if args.back:
        go_back(args.folder)
    else:
        update(args.folder, args.bundle, downgrade=args.downgrade)
    print(shown(args.folder))
    return 0


def _bench(args: argparse.Namespace) -> int:
    from qhyvit_device import report
    from qhyvit_device.bench import MLPERF_RUNS, MLPERF_SECONDS, BenchSettings, bench, check_target, write_json
    from qhyvit_device.profile import profile

    target = None if args.json in (None, "-") else Path(args.json)
    if target is not None:
        check_target(target)
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


def _run(given: Sequence[str]) -> int:
    try:
        args = _parser().parse_args(given)
    except SystemExit as ended:  # --help and --version
        return int(ended.code or 0)
    return {"classify": _classify, "bench": _bench, "info": _info, "update": _update}[args.command](args)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 a check failed, 2 could not do it, 130 interrupted."""
    given = list(sys.argv[1:] if argv is None else argv)
    return guarded(PROGRAM, lambda: _run(given), debug="--debug" in given)


if __name__ == "__main__":
    raise SystemExit(main())
