"""``qhyvit-device``: classify images, check a bundle. Results to stdout, talk to stderr."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from qhyvit_device import __version__
from qhyvit_device.errors import DeviceError
from qhyvit_device.preprocess import FOLDER_FILE, MODES, Preprocess, folder_preprocess, images_in

CLASSIFY_EXAMPLES = """examples:
  qhyvit-device classify BUNDLE photo.jpg --top 3
  qhyvit-device classify BUNDLE folder/ --json
  qhyvit-device classify BUNDLE square.png --resize-mode squash
"""
INFO_EXAMPLES = """examples:
  qhyvit-device info
  qhyvit-device info BUNDLE --json
"""
EXIT_CODES = "exit codes: 0 done; 1 done, but a check failed; 2 could not do it; 130 interrupted\n"


def _count(most: int) -> Any:
    def count(text: str) -> int:
        value = int(text)
        if not 1 <= value <= most:
            raise ValueError
        return value

    count.__name__ = f"number (1 to {most})"  # argparse puts it into its message
    return count


def _parser() -> argparse.ArgumentParser:
    def options(examples: str) -> dict[str, Any]:
        return {"epilog": examples, "formatter_class": argparse.RawDescriptionHelpFormatter}

    examples = CLASSIFY_EXAMPLES + INFO_EXAMPLES.partition("\n")[2] + EXIT_CODES
    parser = argparse.ArgumentParser(
        "qhyvit-device", description="Run integer TFLite bundles on a device.", **options(examples)
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    classify = commands.add_parser("classify", help="classify images", **options(CLASSIFY_EXAMPLES))
    classify.add_argument("bundle", type=Path, help="bundle folder")
    classify.add_argument("images", type=Path, nargs="+", help="image files or folders of images")
    classify.add_argument("--top", type=_count(1 << 20), default=5, help="classes to show (default 5)")
    resize = "how images are resized; default: preprocess.json beside them, else as the bundle says"
    classify.add_argument("--resize-mode", choices=MODES, help=resize)
    about = "this machine; with BUNDLE: check its files and run its self test"
    info = commands.add_parser("info", help=about, description=about, **options(INFO_EXAMPLES))
    info.add_argument("bundle", type=Path, nargs="?", help="bundle folder")
    for command in (classify, info):
        command.add_argument("--threads", type=_count(256), default=1, help="interpreter threads (default 1)")
        command.add_argument("--json", action="store_true", help="one JSON object to stdout")
    return parser


def _images(
    given: Sequence[Path], default: Preprocess, mode: str | None
) -> Iterator[tuple[Path, Preprocess]]:
    """Each image with its preprocessing: an option, else metadata beside the images, else the bundle's."""
    for path in given:
        folder = path if path.is_dir() else path.parent
        how = folder_preprocess(folder, default)
        if mode is not None:
            how = replace(how, mode=mode)
        elif how != default and path.is_dir():
            print(f"{folder / FOLDER_FILE}: {how.mode}, {how.interpolation}", file=sys.stderr)
        for image in images_in(path) if path.is_dir() else (path,):
            yield image, how


def _classify(args: argparse.Namespace) -> None:
    from qhyvit_device.runner import Model

    model = Model.load(args.bundle, args.threads)
    results: list[dict[str, Any]] = []
    for path, how in _images(args.images, model.manifest.preprocess, args.resize_mode):
        found = model.classify(path, args.top, how)
        results.append(
            {"image": str(path), "resize_mode": how.mode, "predictions": [asdict(p) for p in found]}
        )
        if not args.json:
            print(path)
            for p in found:
                label = "".join(c if c.isprintable() else "?" for c in p.label)  # labels are untrusted
                print(f"  {100 * p.probability:5.1f} %  {label} ({p.index})")
    if args.json:
        print(json.dumps({"model": model.manifest.model, "results": results}))


def _info(args: argparse.Namespace) -> None:
    from qhyvit_device.info import describe, environment, require_pass

    facts = environment() if args.bundle is None else describe(args.bundle, args.threads)
    if args.json:
        print(json.dumps(facts))
    else:
        flat = {k: v for k, v in facts.items() if k != "self_test"} | facts.get("self_test", {})
        for key, value in flat.items():
            print(f"{key.replace('_', ' '):20s} {value}")
    if args.bundle is not None:
        require_pass(facts["self_test"])


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 a check failed, 2 could not do it, 130 interrupted."""
    args = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names and labels that the terminal cannot show
    try:
        {"classify": _classify, "info": _info}[args.command](args)
        sys.stdout.flush()
    except DeviceError as error:
        print(f"qhyvit-device: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader has enough: no failure
        _drop_output()
    except OSError as error:
        print(f"qhyvit-device: error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        _drop_output()
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _drop_output() -> None:
    """Let what is still buffered go nowhere, or Python complains about it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    raise SystemExit(main())
