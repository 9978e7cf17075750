"""A board that is this machine with another home: stand-ins for ssh and scp, and wheels of the device stage alone."""

from __future__ import annotations

import platform
import sys
import zipfile
from pathlib import Path

from qhyvit import wheelhouse
from qhyvit.wheelhouse import INSTALL, Platform

HERE = Platform(f"3.{sys.version_info.minor}", platform.machine())
DEVICE = Path(__file__).parents[1] / "device" / "qhyvit_device"
SSH = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
[ "$1" = -- ] && shift
case "$1" in
  down) echo "ssh: connect to host down port 22: No route to host" >&2; exit 255;;
  locked) echo "pi@locked: Permission denied (publickey)." >&2; exit 255;;
esac
cd "$HOME"
exec sh -c "${2:-}"
"""
SCP = """#!/bin/sh
for last; do :; done
[ "$1" = -r ] && shift
while [ "$1" != "$last" ]; do cp -r "$1" "$HOME/${last#*:}"; shift; done
"""


def put_remote_commands(folder: Path) -> None:
    """``ssh`` and ``scp`` into ``folder``; the board's home is ``$HOME``."""
    for name, text in {"ssh": SSH, "scp": SCP}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def own_wheels(folder: Path) -> Path:
    """A wheelhouse of the device stage alone, made in ``folder``; this Python has the rest."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "qhyvit-0.1.0-py3-none-any.whl", "w") as archive:
        for path in DEVICE.rglob("*.py"):
            archive.write(path, f"qhyvit_device/{path.relative_to(DEVICE)}")
    text = wheelhouse.INSTALL_TEXT.replace("@PYTHON@", HERE.python).replace("@MACHINE@", HERE.machine)
    (folder / INSTALL).write_text(text)
    return folder
