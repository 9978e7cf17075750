"""LiteRT on a Cortex-A72 (Raspberry Pi 4): kernels by the instructions that an emulated processor takes."""

from __future__ import annotations

from qhyvit.targets.shared.target import Target

TARGET = Target(
    "litert-cortex-a72",
    "LiteRT on a Cortex-A72 (Raspberry Pi 4)",
    "the interpreter here, tensor by tensor; self tests by arm64's arithmetic",
    processor="cortex-a72",
)
