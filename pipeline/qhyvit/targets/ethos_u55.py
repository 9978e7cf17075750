"""Arm Ethos-U55 (Alif Ensemble, Corstone-300) by its compiler Vela; names count multiply-accumulates a cycle."""

from __future__ import annotations

from qhyvit.targets.shared.target import Target

TARGET = Target(
    "ethos-u55",
    "Arm Ethos-U55 (Alif Ensemble, Corstone-300)",
    "the interpreter here, before Vela compiles it; times and memory are Vela's estimates",
    plain=True,
    floats=False,
    islands=False,
    int4=False,
    fast_gelu=False,
    longest_stride=3,
    longest_mean=4096,
    longest_product=65536,
    largest_transpose=65536,
    system="Ethos_U55_High_End_Embedded",
    memory=("Shared_Sram",),
    needs=(("ethosu.vela", "ethos-u"),),
    accelerators=("ethos-u55-256", "ethos-u55-128", "ethos-u55-64", "ethos-u55-32"),
)
