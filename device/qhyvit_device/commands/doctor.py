"""``doctor``: whether this board has what bundles need, and what makes them fast."""

from __future__ import annotations

import argparse
import json

from qhyvit_device.commands.shared.command import Command
from qhyvit_device.terminal import shown


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object to stdout")


def _run(args: argparse.Namespace) -> int:
    from qhyvit_device.doctor import examine, passed

    findings = examine()
    if args.json:
        print(json.dumps({"passed": passed(findings), "findings": [f.to_json() for f in findings]}))
    else:
        for finding in findings:
            print(shown(finding.line))
    return 0 if passed(findings) else 1


COMMAND = Command("doctor", "say what is installed here, what is missing, and what to do", _options, _run)
