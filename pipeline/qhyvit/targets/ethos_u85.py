"""Arm Ethos-U85 (Alif Ensemble E4 to E8, Corstone-320) by its compiler Vela; names count products a cycle."""

from __future__ import annotations

from dataclasses import replace

from qhyvit.targets.shared.ethos_u import ETHOS_U

TARGET = replace(
    ETHOS_U,
    name="ethos-u85",
    summary="Arm Ethos-U85 (Alif Ensemble E4 to E8, Corstone-320)",
    int16=False,
    system="Ethos_U85_SYS_DRAM_Mid",
    memory=("Dedicated_Sram_512KB", "Dedicated_Sram"),
    accelerators=("ethos-u85-512", "ethos-u85-128", "ethos-u85-256", "ethos-u85-1024", "ethos-u85-2048"),
)
