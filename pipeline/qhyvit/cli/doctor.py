"""``qhyvit doctor``: what is missing for which command, and what to do."""

from __future__ import annotations

import json

from qhyvit import console
from qhyvit.cli.app import Json, app
from qhyvit.errors import CheckFailedError
from qhyvit_device.doctor import MISSING


@app.command(epilog="Example: `qhyvit doctor`; on a board `qhyvit-device doctor`")
def doctor(as_json: Json = False) -> None:
    """Look at this machine: versions, known traps, cores, memory, disk, and what is missing for which command.

    Exit code 1 where something is missing that every build needs.
    """
    from qhyvit.doctor import examine

    findings = examine()
    missing = [f.name for f in findings if f.state == MISSING]
    if as_json:
        print(json.dumps({"passed": not missing, "findings": [f.to_json() for f in findings]}))
    else:
        for finding in findings:
            console.say(finding.line)
    if missing:
        raise CheckFailedError(f"every build needs what is missing here: {', '.join(missing)}")
