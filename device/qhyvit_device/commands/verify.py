"""``verify``: whether a bundle is the one that the owner of a key signed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from qhyvit_device.commands.shared.command import Command
from qhyvit_device.errors import CheckFailedError, DeviceError
from qhyvit_device.terminal import shown


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--key", type=Path, metavar="PUBLIC", help="public key in PEM; default: $QHYVIT_PUBLIC_KEY")
    parser.add_argument("--json", action="store_true", help="one JSON object to stdout")


def _run(args: argparse.Namespace) -> int:
    from qhyvit_device import signature

    key = signature.configured() if args.key is None else signature.read_key(args.key)
    if key is None:
        raise DeviceError(f"give the maker's public key: --key PUBLIC, or in {signature.VARIABLE}")
    try:
        found = signature.signed_files(args.bundle, key)
    except signature.SignatureError as error:
        raise CheckFailedError(str(error)) from error
    if args.json:
        print(json.dumps({"bundle": str(args.bundle), "key_sha256": key.hint, "files": sorted(found)}))
    else:
        print(f"{shown(args.bundle)}: {len(found)} files as they were signed by the key {key.hint[:16]}")
    return 0


COMMAND = Command("verify", "whether a bundle is the one that the owner of a key signed", _options, _run)
