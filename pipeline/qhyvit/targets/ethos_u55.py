"""Arm Ethos-U55 (Alif Ensemble, Corstone-300) by its compiler Vela; names count multiply-accumulates a cycle."""

from __future__ import annotations

from dataclasses import replace

from qhyvit.targets.shared.ethos_u import FIRST
from qhyvit.targets.shared.target import PLAIN

TARGET = replace(
    FIRST,
    name="ethos-u55",
    summary="Arm Ethos-U55 (Alif Ensemble, Corstone-300)",
    sizes=replace(PLAIN, softmax_elements=0, factor_layers=1 << 14),  # by Vela's estimates
    system="Ethos_U55_High_End_Embedded",
    memory=("Shared_Sram",),
    accelerators=("ethos-u55-256", "ethos-u55-128", "ethos-u55-64", "ethos-u55-32"),
)
