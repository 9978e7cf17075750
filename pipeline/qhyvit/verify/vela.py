"""Arm's compiler Vela over a finished file: what runs on the Ethos-U, what stays on the CPU and why, estimates."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qhyvit.errors import InputError
from qhyvit.targets import Target

SECONDS = 1800  # of one compilation: U85's scheduler took four minutes for a large network
REFUSED = re.compile(r"operator: (\w+), ofm: '([^']*)'\s*\nReason: *(.*)")
NO_ROOM = "Failed to allocate tensors"
NAMED = re.compile(r"\s*\([^()]*/[^()]*\)$")  # a tensor behind a reason
COUNTS = re.compile(r"^(CPU|NPU) operators = (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Compiled:
    """What Vela made of a file, and what it says of it.

    Args:
        model: the compiled file.
        accelerator, system, memory, version: what it was compiled for, and by which Vela.
        on_npu, on_cpu: operators; Vela parts some of the file's in several.
        refused: (op, tensor that it writes, Vela's reason) of those on the CPU, as the file has them.
        ms: of one inference, estimated; ``cycles`` as well.
        sram_kib, dram_kib, flash_kib: memory used, by kind.
        macs: multiply-accumulates of one inference.
    """

    model: bytes
    accelerator: str
    system: str
    memory: str
    version: str
    on_npu: int
    on_cpu: int
    refused: tuple[tuple[str, str, str], ...]
    ms: float
    cycles: int
    sram_kib: float
    dram_kib: float
    flash_kib: float
    macs: int

    @property
    def said(self) -> str:
        """In a line."""
        share = self.on_npu / max(self.on_npu + self.on_cpu, 1)
        reasons = sorted({f"{op}: {reason}" for op, _, reason in self.refused})
        more = f"; on the CPU: {'; '.join(reasons[:3])}" if reasons else ""
        memory = f"{self.sram_kib:.0f} KiB SRAM" + (f", {self.dram_kib:.0f} KiB DRAM" if self.dram_kib else "")
        placed = f"{self.on_npu} of {self.on_npu + self.on_cpu} operators on the NPU ({share:.1%})"
        return f"{placed}; estimated {self.ms:.1f} ms, {memory} ({self.system}, {self.memory}){more}"

    def to_json(self) -> dict[str, Any]:
        """Plain data without the file."""
        return {name: value for name, value in asdict(self).items() if name != "model"}


def compiled(model: bytes, target: Target) -> Compiled:
    """``model`` compiled for the target's accelerator, with the first of its memories in which it finds room.

    Raises:
        InputError: Vela is missing, or fails.
    """
    for memory in target.memory[:-1]:
        try:
            return _compiled(model, target, memory)
        except InputError as error:
            if NO_ROOM not in str(error):
                raise
    return _compiled(model, target, target.memory[-1])


def _compiled(model: bytes, target: Target, memory: str) -> Compiled:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "model.tflite").write_bytes(model)
        command = [
            sys.executable, "-m", "ethosu.vela", str(folder / "model.tflite"), "--output-dir", str(folder),
            "--accelerator-config", target.accelerator, "--config", "Arm/vela.ini",
            "--system-config", target.system, "--memory-mode", memory, "--show-cpu-operations",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False, cwd=folder
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"Vela took more than {SECONDS // 60} minutes; it was ended") from error
        said, made = done.stdout + done.stderr, folder / "model_vela.tflite"
        tables = list(folder.glob("model_summary_*.csv"))
        if done.returncode or not made.is_file() or not tables:
            raise InputError(f"Vela cannot compile the file for {target.accelerator}: {_reason(said, done.returncode)}")
        row = next(csv.DictReader(tables[0].read_text().splitlines()))
        counts = {kind: int(count) for kind, count in COUNTS.findall(said)}
        return Compiled(
            made.read_bytes(), target.accelerator, target.system, memory, metadata.version("ethos-u-vela"),
            counts.get("NPU", 0), counts.get("CPU", 0),
            tuple((op, tensor, NAMED.sub("", reason.strip())) for op, tensor, reason in REFUSED.findall(said)),
            round(float(row["inference_time"]) * 1e3, 3), int(float(row["cycles_total"])),
            round(float(row["sram_memory_used"]), 1), round(float(row["dram_memory_used"]), 1),
            round(float(row["on_chip_flash_memory_used"]) + float(row["off_chip_flash_memory_used"]), 1),
            int(float(row["nn_macs"])),
        )  # fmt: skip


def _reason(said: str, code: int) -> str:
    if "No module named" in said:
        return "it is not installed; pip install 'qhyvit[ethos-u]'"
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("Warning")]
    return next((line for line in reversed(lines) if "rror" in line), f"it ended with code {code}")[:200]
