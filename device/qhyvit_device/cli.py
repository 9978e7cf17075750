"""``qhyvit-device``: read images with a bundle, measure latency, check it. Results to stdout, talk to stderr."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from qhyvit_device import __version__
from qhyvit_device.commands import bench, classify, doctor, embed, info, run, segment, update, verify
from qhyvit_device.commands.shared.command import PROGRAM
from qhyvit_device.errors import DeviceError
from qhyvit_device.terminal import guarded

COMMANDS = {
    command.name: command
    for command in (
        classify.COMMAND, embed.COMMAND, segment.COMMAND, run.COMMAND, info.COMMAND, doctor.COMMAND, bench.COMMAND,
        update.COMMAND, verify.COMMAND,
    )
}  # fmt: skip
EXAMPLES = """examples:
  qhyvit-device classify BUNDLE photo.jpg --top 3
  qhyvit-device classify BUNDLE folder/ --json
  qhyvit-device classify BUNDLE --watch incoming/ --json
  qhyvit-device embed BUNDLE photo.jpg --gallery people/
  qhyvit-device segment BUNDLE road.jpg --draw map.png
  qhyvit-device run BUNDLE photo.jpg --out outputs.npz
  qhyvit-device bench BUNDLE float.tflite --threads 1,4 --json out.json
  qhyvit-device info BUNDLE
  qhyvit-device doctor
  qhyvit-device update BUNDLE NEW
  qhyvit-device verify BUNDLE --key maker.pub
"""


class _Parser(argparse.ArgumentParser):
    """One whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say it and end."""
        raise DeviceError(f"{message}; {self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Help and version; argparse passes over a stream that cannot be written."""
        (file or sys.stdout).write(message)


def _examples(command: str) -> str:
    """Those of the examples that are about one command."""
    title, *lines = EXAMPLES.splitlines()
    return "\n".join([title, *(line for line in lines if line.split()[1] == command)])


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        PROGRAM, description="Run bundles (a quantized model, its labels and a self test) on a board.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS.values():
        own = commands.add_parser(
            command.name, help=command.help, description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=_examples(command.name), formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.options(own)
        own.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _run(given: Sequence[str]) -> int:
    try:
        args = _parser().parse_args(given)
    except SystemExit as ended:  # --help and --version
        return int(ended.code or 0)
    return COMMANDS[args.command].run(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 done, 1 a check failed, 2 could not do it, 130 interrupted."""
    given = list(sys.argv[1:] if argv is None else argv)
    return guarded(PROGRAM, lambda: _run(given), debug="--debug" in given)


if __name__ == "__main__":
    raise SystemExit(main())
