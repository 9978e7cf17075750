"""The device stage for a board that fetches nothing: wheels, and a script that unpacks them with Python alone.

The board needs neither pip nor a virtual environment (Raspberry Pi OS refuses pip outside of one, PEP 668): a wheel is
a zip file whose content goes into one folder. A launcher beside it sets the path. ai-edge-litert asks for more
packages than its interpreter imports (numpy alone), so dependencies are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from qhyvit import files
from qhyvit.errors import InputError, UsageError
from qhyvit.progress import Log

# ai-edge-litert's own tag says 2_27; its arm64 library needs glibc 2.34 all the same, Debian 12
PLATFORMS = {
    "aarch64": ("manylinux_2_27_aarch64", "manylinux_2_28_aarch64", "manylinux2014_aarch64"),
    "x86_64": ("manylinux_2_27_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64"),
}
PINS = Path(__file__).with_name("device_wheels.txt")
FIRST_ZIP_DATE = "315532800"  # 1980: of all files in our own wheel, so that the same code gives the same bytes
INSTALL, LAUNCHER, INDEX = "install.sh", "qhyvit-device", "wheelhouse.json"
INSTALL_TEXT = """#!/bin/sh
# Unpacks the wheels beside this script into FOLDER (default: here) and writes FOLDER/qhyvit-device, which runs them.
# Nothing is fetched, nothing else on the system is touched. Usage: sh install.sh [FOLDER]
# QHYVIT_SYSTEM_PACKAGES=1: numpy and pillow are the system's own (apt install python3-numpy python3-pil).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:-$here}"
folder=$(cd "${1:-$here}" && pwd)
python=${PYTHON:-python3}
"$python" - "@PYTHON@" "@MACHINE@" <<'CHECK'
import platform, struct, sys
wanted, machine = sys.argv[1:]
here = "%d.%d" % sys.version_info[:2]
if struct.calcsize("P") != 8:
    sys.exit("install.sh: this Python is 32-bit; int8 models crash there: use a 64-bit system")
if here != wanted or platform.machine() != machine:
    sys.exit("install.sh: these wheels are for Python %s on %s, this is Python %s on %s; make a wheelhouse with "
             "--python %s --machine %s" % (wanted, machine, here, platform.machine(), here, platform.machine()))
CHECK
rm -rf "$folder/site.new"
for wheel in "$here"/*.whl; do
  case "${QHYVIT_SYSTEM_PACKAGES:-0}/${wheel##*/}" in 1/numpy-*|1/pillow-*) continue;; esac
  "$python" -m zipfile -e "$wheel" "$folder/site.new"
done
rm -rf "$folder/site" && mv "$folder/site.new" "$folder/site"
cat > "$folder/qhyvit-device" <<LAUNCH
#!/bin/sh
PYTHONPATH="$folder/site" exec "$python" -m qhyvit_device "\\$@"
LAUNCH
chmod +x "$folder/qhyvit-device"
if [ -d "$here/bundle" ]; then set -- "$here/bundle"; else set --; fi
"$folder/qhyvit-device" info "$@"
"""


@dataclass(frozen=True)
class Platform:
    """A board's Python version ("3.11") and machine ("aarch64")."""

    python: str = "3.11"
    machine: str = "aarch64"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"3\.\d+", self.python):
            raise UsageError(f"--python {self.python}: a version like 3.11")
        if self.machine not in PLATFORMS:
            raise UsageError(f"--machine {self.machine}: known are {', '.join(PLATFORMS)} (32-bit is not supported)")

    @property
    def pip_options(self) -> list[str]:
        """How pip is told to fetch for it."""
        tag = "cp" + self.python.replace(".", "")
        wanted = [part for p in PLATFORMS[self.machine] for part in ("--platform", p)]
        return [*wanted, "--python-version", self.python, "--implementation", "cp", "--abi", tag, "--abi", "abi3",
                "--abi", "none"]  # fmt: skip


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": FIRST_ZIP_DATE}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise InputError(f"wheelhouse: {lines[0].removeprefix('ERROR: ')}")


def _source() -> Path | None:
    """The checkout that this code runs from, None where it is an installed wheel's."""
    path = Path(__file__).parents[2]
    return path if (path / "pyproject.toml").is_file() else None


def _own_wheel(folder: Path) -> None:
    source = _source()
    if source is None:
        _pip("download", "--no-deps", "--dest", str(folder), f"qhyvit=={metadata.version('qhyvit')}")
        return
    with tempfile.TemporaryDirectory() as place:  # building leaves files in the tree that it builds
        copy = Path(place) / "qhyvit"
        keep = ("pyproject.toml", "README.md", "LICENSE", "pipeline", "device")
        copy.mkdir()
        for name in keep:
            if (source / name).is_dir():
                shutil.copytree(source / name, copy / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
            elif (source / name).is_file():
                shutil.copy2(source / name, copy / name)
        _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(copy))


def digest(folder: Path) -> str:
    """Hash of a wheelhouse: names and contents."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


def fetch(folder: Path, target: Platform, log: Log) -> None:
    """Fetch what the device stage runs with, in the versions of ``device_wheels.txt``.

    Raises:
        InputError: a wheel cannot be had.
    """
    log(f"fetching wheels for Python {target.python} on {target.machine}")
    _pip("download", "--no-deps", "--only-binary=:all:", *target.pip_options, "--dest", str(folder), "-r", str(PINS))


def holds_wheels(folder: Path) -> bool:
    """Whether a folder holds a wheelhouse, perhaps unpacked where it lies, and nothing else."""
    try:
        named = json.loads((folder / INDEX).read_text())["wheels"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    own = (INDEX, INSTALL, LAUNCHER, "site", "site.new", "bundle")
    return isinstance(named, list) and files.only(folder, (*map(str, named), *own))


def make(out: Path, target: Platform, log: Log, *, force: bool = False) -> list[Path]:
    """Fetch and build the wheels for ``target``; the folder appears whole.

    Raises:
        InputError: a wheel cannot be had.
        OutputError: ``out`` exists without ``force``, or cannot be written.
    """
    with files.new_folder(out, force=force, ours=holds_wheels) as folder:
        fetch(folder, target, log)
        _own_wheel(folder)
        text = INSTALL_TEXT.replace("@PYTHON@", target.python).replace("@MACHINE@", target.machine)
        (folder / INSTALL).write_text(text)
        names = sorted(p.name for p in folder.glob("*.whl"))
        (folder / INDEX).write_text(json.dumps({"python": target.python, "machine": target.machine, "wheels": names}))
    return [out / name for name in names]
