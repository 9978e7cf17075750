"""LiteRT on a Cortex-A76 (Raspberry Pi 5): kernels by the instructions that an emulated processor takes."""

from __future__ import annotations

from qhyvit.targets.shared.target import Target

TARGET = Target(
    "litert-cortex-a76",
    "LiteRT on a Cortex-A76 (Raspberry Pi 5)",
    "the interpreter here, tensor by tensor; self tests by arm64's arithmetic",
    processor="cortex-a76",
)
