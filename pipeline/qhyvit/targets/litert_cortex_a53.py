"""LiteRT on a Cortex-A53 (Raspberry Pi 3, Zero 2 W): kernels by the instructions that an emulated processor takes."""

from __future__ import annotations

from qhyvit.targets.shared.target import Target

TARGET = Target(
    "litert-cortex-a53",
    "LiteRT on a Cortex-A53 (Raspberry Pi 3, Zero 2 W)",
    "the interpreter here, tensor by tensor; self tests by arm64's arithmetic",
    processor="cortex-a53",
)
