"""arm64 processors under QEMU's user emulation: what is computed, in how many instructions; never how fast."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

from qhyvit.wheelhouse import Platform, make

ROOT = Path(__file__).parents[1]
SCRIPT = Path(__file__).with_name("emulated.py")
GUEST_BASE = "100000000000"  # hexadecimal: where the emulated memory begins, for the clock
PROCESSORS = ("cortex-a53", "cortex-a72", "cortex-a76")  # Raspberry Pi 3 and Zero 2 W, 4, 5; only the last: dot product


def folder() -> Path:
    """Where the emulator and the arm64 files lie: ``$QHYVIT_ARM64``, else ``build/arm64``."""
    return Path(os.environ.get("QHYVIT_ARM64", ROOT / "build" / "arm64")).absolute()


def prepare(place: Path, *, counting: bool = False) -> None:
    """Fetch or build what is missing; ``counting``: an emulator that counts instructions too."""
    subprocess.run(["bash", str(ROOT / "tools" / "arm64_root.sh"), str(place)], check=True)
    if counting:
        subprocess.run(["bash", str(ROOT / "tools" / "qemu_counting.sh"), str(place)], check=True)
    if not (place / "wheels").is_dir():
        make(place / "wheels", Platform("3.11", "aarch64"), print)
        for wheel in (place / "wheels").glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(place / "site")


def emulate(
    place: Path, processor: str, *arguments: str | Path, count_into: Path | None = None, clock: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run Python with ``arguments`` on ``processor``; the device stage is this checkout's.

    Args:
        count_into: text file for the number of instructions.
        clock: its clock counts instructions, one microsecond each.
    """
    path = f"{ROOT / 'device'}:{place / 'site'}"
    emulator: list[str | Path] = [place / "qemu"]
    if clock:
        emulator = [place / "qemu-counting", "-B", f"0x{GUEST_BASE}", "-plugin", place / "libclock.so"]
    elif count_into is not None:
        plugin = f"{place / 'libinsn.so'},inline=on"
        emulator = [place / "qemu-counting", "-plugin", plugin, "-d", "plugin", "-D", count_into]
    command = [*emulator, "-L", place / "root", "-cpu", processor, place / "root/usr/bin/python3.11", *arguments]
    environment = {
        "PYTHONPATH": path, "PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0",
        "GUEST_BASE": GUEST_BASE,
    }  # fmt: skip
    return subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True, check=False)
