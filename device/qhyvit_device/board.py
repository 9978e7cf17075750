"""What this machine is, and the state it is in: processor, clock, temperature, throttling, load. Files may be missing.

Sources: Linux's sysfs and procfs documentation; the bits of ``vcgencmd get_throttled`` from Raspberry Pi's.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# features that decide how fast int8 is, by their names in /proc/cpuinfo
FEATURES = ("asimddp", "i8mm", "fphp", "asimdhp", "sve", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
ARM_PARTS = {"0xd03": "Cortex-A53", "0xd07": "Cortex-A57", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76"}
THROTTLED = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
SINCE_BOOT = 16  # the same bits, this much higher: it happened at any time since boot


def _text(path: Path) -> str | None:
    """A small file's text without its end; None where it can't be read."""
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.lstrip("-").isdigit() else None


@dataclass(frozen=True)
class Board:
    """What does not change: board and processor names, cores, features, memory in MiB."""

    board: str | None
    processor: str | None
    machine: str
    cores: int
    features: tuple[str, ...]
    memory_mib: int | None
    kernel: str
    emulated: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def _processor(info: str) -> tuple[str | None, tuple[str, ...]]:
    """Name and features from the text of /proc/cpuinfo."""
    values: dict[str, str] = {}
    for line in info.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip(), value.strip())
    flags = set((values.get("flags") or values.get("Features") or "").split())
    part = values.get("CPU part")
    name = values.get("model name") or (ARM_PARTS.get(part, f"ARM part {part}") if part else None)
    return name, tuple(f for f in FEATURES if f in flags)


def _memory_mib(info: str, of: str = "MemTotal") -> int | None:
    for line in info.splitlines():
        if line.startswith(f"{of}:"):
            return int(line.split()[1]) // 1024
    return None


def board(root: Path = Path("/")) -> Board:
    """Facts of this machine; ``root`` is where /proc and /sys are looked for."""
    name, features = _processor(_text(root / "proc/cpuinfo") or "")
    memory = _memory_mib(_text(root / "proc/meminfo") or "")
    return Board(
        _text(root / "proc/device-tree/model"), name, platform.machine(), os.cpu_count() or 1, features, memory,
        platform.release(), _emulated(platform.machine(), root),
    )  # fmt: skip


def usable_cores() -> int:
    """Cores that this process may use, which a container or taskset may have fewer of."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def free_memory_mib(root: Path = Path("/")) -> int | None:
    """Memory that a program can have now, within the limit of its control group; None where it can't be read."""
    free = _memory_mib(_text(root / "proc/meminfo") or "", "MemAvailable")
    most, used = (_number(root / f"sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if most is None or used is None:
        return free
    left = max(most - used, 0) >> 20
    return left if free is None else min(left, free)


def _emulated(machine: str, root: Path) -> bool:
    """Whether an arm64 program runs on another processor, whose /sys user emulation shows: it lacks this register."""
    cores = root / "sys/devices/system/cpu"
    return machine == "aarch64" and cores.is_dir() and not (cores / "cpu0/regs/identification/midr_el1").is_file()


@dataclass(frozen=True)
class BoardState:
    """What may change: clock of each core and its limit in kHz, governor, temperature in degrees C, throttling bits.

    ``load``: processors that other programs kept busy; None: not watched.
    """

    frequency_khz: Mapping[str, int] = field(default_factory=dict)
    max_khz: Mapping[str, int] = field(default_factory=dict)
    governor: str | None = None
    temperature_c: float | None = None
    throttled: int | None = None
    load: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, the throttling bits in words too."""
        return {**asdict(self), "throttled_now": throttling(self.throttled)}


def throttling(bits: int | None) -> list[str]:
    """The conditions that hold now, in words."""
    return [] if bits is None else [word for bit, word in THROTTLED.items() if bits >> bit & 1]


def _throttled() -> int | None:
    tool = shutil.which("vcgencmd")
    if tool is None:
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run([tool, "get_throttled"], capture_output=True, text=True, timeout=5, check=True)
        return int(done.stdout.strip().partition("=")[2], 16)
    return None


def _temperature(root: Path) -> float | None:
    zones = [_number(p) for p in sorted(root.glob("sys/class/thermal/thermal_zone*/temp"))]
    found = [z for z in zones if z is not None]
    return max(found) / 1000 if found else None


def _ticks(root: Path) -> tuple[int, int, int] | None:
    """Of all processors since the start: busy and all ticks; and how many processors there are."""
    lines = [line.split() for line in (_text(root / "proc/stat") or "").splitlines() if line.startswith("cpu")]
    if not lines or len(lines[0]) < 6:
        return None
    spent = [int(n) for n in lines[0][1:]]
    idle = spent[3] + spent[4]  # waiting for disks included
    whole = sum(spent[:8])  # what guests take is in the first two already
    return whole - idle, whole, max(len(lines) - 1, 1)


def busy_processors(seconds: float, root: Path = Path("/")) -> float | None:
    """Processors that other programs keep busy, watched for ``seconds``; the minute's load where there is no /proc."""
    before = _ticks(root)
    if before is None:
        with contextlib.suppress(OSError):
            return os.getloadavg()[0]
        return None
    time.sleep(seconds)
    after = _ticks(root) or before
    passed = after[1] - before[1]
    return (after[0] - before[0]) / passed * after[2] if passed > 0 else 0.0


def state(root: Path = Path("/"), watch_s: float = 0.0) -> BoardState:
    """The state now; the load is watched for ``watch_s`` seconds, 0: not at all."""
    clock, limit, governors = {}, {}, set()
    for folder in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq")):
        core = folder.parent.name
        now, most, governor = (
            _number(folder / "scaling_cur_freq"), _number(folder / "scaling_max_freq"),
            _text(folder / "scaling_governor"),
        )  # fmt: skip
        if now is not None:
            clock[core] = now
        if most is not None:
            limit[core] = most
        if governor:
            governors.add(governor)
    load = busy_processors(watch_s, root) if watch_s else None
    names = ", ".join(sorted(governors)) or None
    return BoardState(clock, limit, names, _temperature(root), _throttled() if root == Path("/") else None, load)


def peak_memory_mib() -> float | None:
    """Largest resident size of this program so far; None where the system does not tell.

    Linux's VmHWM begins anew when a program starts; getrusage's figure is inherited from the one that started it.
    """
    for line in (_text(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1 << 20 if platform.system() == "Darwin" else 1 << 10)
