"""What is installed here and what this machine has, with one line of remedy for all that is amiss."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from qhyvit_device import board, signature
from qhyvit_device.errors import DeviceError
from qhyvit_device.interpreter import find_interpreter
from qhyvit_device.trust import GOOD_GOVERNORS

OK, NOTE, WARNING, MISSING = "ok", "note", "warning", "MISSING"
FAST = {  # of a processor's features, those that int8 kernels of XNNPACK are much faster with, the best first
    "x86_64": ("amx_int8", "avx512_vnni", "avx_vnni"),
    "aarch64": ("i8mm", "asimddp"),
}
LEAST_MEMORY_MIB = 256
RUNTIME = "ai-edge-litert"
BOUND = re.compile(r"(<=|>=|==|!=|<|>|~=)\s*([0-9][\w.]*)")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        state: :data:`OK`; :data:`NOTE`, which something that is seldom used lacks; :data:`WARNING`; or :data:`MISSING`,
            without which the work cannot be done.
        found: what it is, in words; ``remedy``: what to do, "" where nothing is amiss.
    """

    name: str
    state: str
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.state:8s} {self.name}: {self.found}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Requirement:
    """A distribution that the package asks for; ``bounds`` as they are written there; ``extra`` "" for all installs."""

    name: str
    bounds: str
    extra: str

    def allows(self, version: str) -> bool:
        """Whether a version lies within the bounds."""
        return all(_compare(_numbers(version), sign, _numbers(limit)) for sign, limit in BOUND.findall(self.bounds))


def requirements() -> list[Requirement]:
    """What the installed package asks for; empty where it runs without having been installed."""
    try:
        lines = metadata.requires("qhyvit") or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        named, _, marker = line.partition(";")
        name = re.match(r"[\w.-]+", named.strip())
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if name is not None:
            bounds = ",".join(sorted(("".join(pair) for pair in BOUND.findall(named)), reverse=True))
            found.append(Requirement(name[0], bounds, "" if extra is None else extra[1]))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    """The release's numbers: 2.13.0+cpu has (2, 13)."""
    parts = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(n) for n in parts[0].split(".")] if parts else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _compare(version: tuple[int, ...], sign: str, limit: tuple[int, ...]) -> bool:
    signs: dict[str, Callable[[], bool]] = {
        "<": lambda: version < limit, "<=": lambda: version <= limit, ">": lambda: version > limit,
        ">=": lambda: version >= limit, "==": lambda: version == limit, "!=": lambda: version != limit,
        "~=": lambda: version >= limit and version[: len(limit) - 1] == limit[:-1],
    }  # fmt: skip
    return signs[sign]()


def installed(wanted: Requirement, without: str, *, needed: bool) -> Finding:
    """Whether a distribution is there in a version that the package allows.

    Args:
        without: what cannot be done without it, in words.
        needed: it is missing, and not merely noted.
    """
    get = f"pip install '{wanted.name}{wanted.bounds}'"
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return Finding(wanted.name, MISSING if needed else NOTE, f"not installed: {without}", get)
    if not wanted.allows(version):
        return Finding(wanted.name, WARNING, f"{version} was not tried, {wanted.bounds} was", get)
    return Finding(wanted.name, OK, f"{version}" + (f" ({wanted.bounds})" if wanted.bounds else ""))


def python() -> Finding:
    """The interpreter of Python."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.maxsize < 2**32:
        return Finding("python", MISSING, f"{version}, 32 bits", "int8 models crash there: use a 64-bit system")
    return Finding("python", OK, version)


def runtime() -> Finding:
    """The interpreter of TFLite files, which is loaded."""
    try:
        _, name, version = find_interpreter()
    except DeviceError as error:
        found, _, remedy = str(error).partition("; ")
        return Finding("runtime", MISSING, found, remedy or f"pip install {RUNTIME}")
    if name != RUNTIME:
        return Finding("runtime", WARNING, f"{name} {version}: int8 may run on slow kernels", f"pip install {RUNTIME}")
    return Finding("runtime", OK, f"{name} {version} loads")


def processor(root: Path = Path("/")) -> list[Finding]:
    """Its features, how many of its cores this process may use, and their governor."""
    about, state = board.board(root), board.state(root)
    name, fast = about.processor or about.machine, FAST.get(about.machine, ())
    has = [feature for feature in fast if feature in about.features]
    found = []
    if about.emulated:
        found.append(Finding("processor", WARNING, "it is emulated", "times say nothing about a board"))
    elif has:
        found.append(Finding("processor", OK, f"{name}, with {', '.join(has)}"))
    else:
        found.append(Finding("processor", NOTE, f"{name}, without dot products of int8: it gains less over float"))
    if state.governor is not None and not set(state.governor.split(", ")) <= {*GOOD_GOVERNORS}:
        found.append(Finding("governor", NOTE, f"{state.governor}: times vary", "for a bench set it to performance"))
    elif state.governor is not None:
        found.append(Finding("governor", OK, state.governor))
    hot = board.throttling(state.throttled)
    if hot:
        found.append(Finding("power", WARNING, ", ".join(hot), "use a stronger power supply or better cooling"))
    return [*found, Finding("cores", OK, f"{board.usable_cores()} of {about.cores}")]


def memory(least_mib: int, short: str, root: Path = Path("/")) -> Finding:
    """What is free of it, within what the container may have; ``short``: what to do with less than ``least_mib``."""
    free = board.free_memory_mib(root)
    if free is None:
        return Finding("memory", NOTE, "this system does not tell how much is free")
    if free < least_mib:
        return Finding("memory", WARNING, f"{free} MiB free, {least_mib} are wanted", short)
    return Finding("memory", OK, f"{free} MiB free")


def disk(place: Path, least_mib: int) -> Finding:
    """What is free where ``place`` is."""
    free = shutil.disk_usage(place).free >> 20
    if free < least_mib:
        return Finding("disk", WARNING, f"{free} MiB free in {place}, {least_mib} are wanted", "make room")
    return Finding("disk", OK, f"{free} MiB free in {place}")


def system_files(root: Path = Path("/")) -> list[Finding]:
    """``/sys``, which a container may lack: XNNPACK then takes no op."""
    if (root / "sys/devices/system/cpu").is_dir():
        return []
    return [Finding("/sys", WARNING, "not mounted: XNNPACK takes no op, and int8 runs on slow kernels", "mount /sys")]


def signatures() -> list[Finding]:
    """Where bundles have to be signed: by whom, and whether that can be checked."""
    if signature.VARIABLE not in os.environ:
        return []
    try:
        key = signature.configured()
    except DeviceError as error:
        return [Finding("signatures", MISSING, f"no bundle is read: {error}", "see docs/security.md")]
    assert key is not None
    return [Finding("signatures", OK, f"bundles have to be signed by {key.path} ({key.hint[:16]})")]


def examine(root: Path = Path("/")) -> list[Finding]:
    """Everything that a board needs, and what decides how fast it is."""
    wanted = [r for r in requirements() if not r.extra]
    packages = [installed(r, "no bundle can be read", needed=True) for r in wanted if r.name != RUNTIME]
    return [
        python(), *packages, runtime(), *processor(root), *system_files(root),
        memory(LEAST_MEMORY_MIB, "end other programs", root), *signatures(),
    ]  # fmt: skip


def passed(findings: Iterable[Finding]) -> bool:
    """Whether nothing is missing."""
    return all(finding.state != MISSING for finding in findings)
