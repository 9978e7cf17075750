"""``info``: this machine, and whether a bundle does here what it did where it was made."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from qhyvit_device.commands.shared.arguments import threads
from qhyvit_device.commands.shared.command import Command
from qhyvit_device.terminal import shown


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, nargs="?", help="bundle folder")
    parser.add_argument("--threads", type=threads, default=1, help="interpreter threads (default 1)")
    parser.add_argument("--json", action="store_true", help="one JSON object to stdout")


def _run(args: argparse.Namespace) -> int:
    from qhyvit_device.info import describe, environment

    facts = environment() if args.bundle is None else describe(args.bundle, args.threads)
    if args.json:
        print(json.dumps(facts))
        return 0
    for key, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{key.replace('_', ' '):20s} {shown(text)}")
    return 0


COMMAND = Command("info", "show this machine; with BUNDLE: check it and run its self test", _options, _run)
