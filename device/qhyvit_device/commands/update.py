"""``update``: another bundle in the place of one that programs use."""

from __future__ import annotations

import argparse
from pathlib import Path

from qhyvit_device.commands.shared.command import Command
from qhyvit_device.errors import DeviceError
from qhyvit_device.terminal import shown


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder of the bundle; the old one is kept as FOLDER.previous")
    parser.add_argument("bundle", type=Path, nargs="?", help="the new bundle; its self test has to pass")
    parser.add_argument("--downgrade", action="store_true", help="take a bundle that an older qhyvit made")
    parser.add_argument("--back", action="store_true", help="exchange FOLDER for FOLDER.previous")


def _run(args: argparse.Namespace) -> int:
    from qhyvit_device.update import go_back, update

    if (args.bundle is None) != args.back:
        raise DeviceError("give a bundle, or --back")
    if args.back:
        go_back(args.folder)
    else:
        update(args.folder, args.bundle, downgrade=args.downgrade)
    print(shown(args.folder))
    return 0


COMMAND = Command("update", "replace a bundle in one step, while programs use it", _options, _run)
