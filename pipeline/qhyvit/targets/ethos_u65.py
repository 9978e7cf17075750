"""Arm Ethos-U65 (NXP i.MX 93) by its compiler Vela; names count multiply-accumulates a cycle."""

from __future__ import annotations

from dataclasses import replace

from qhyvit.targets.shared.ethos_u import FIRST
from qhyvit.targets.shared.target import PLAIN

TARGET = replace(
    FIRST,
    name="ethos-u65",
    summary="Arm Ethos-U65 (NXP i.MX 93)",
    sizes=replace(PLAIN, softmax_elements=0, factor_layers=1 << 15),  # by Vela's estimates
    system="Ethos_U65_High_End",
    memory=("Dedicated_Sram_384KB", "Dedicated_Sram_512KB", "Dedicated_Sram"),
    accelerators=("ethos-u65-256", "ethos-u65-512"),
)
