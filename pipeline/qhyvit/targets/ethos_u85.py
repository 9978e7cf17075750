"""Arm Ethos-U85 (Alif Ensemble E4 to E8, Corstone-320) by its compiler Vela; names count products a cycle."""

from __future__ import annotations

from qhyvit.targets.shared.target import Target

TARGET = Target(
    "ethos-u85",
    "Arm Ethos-U85 (Alif Ensemble E4 to E8, Corstone-320)",
    "the interpreter here, before Vela compiles it; times and memory are Vela's estimates",
    plain=True,
    floats=False,
    islands=False,
    int4=False,
    fast_gelu=False,
    int16=False,
    longest_mean=4096,
    system="Ethos_U85_SYS_DRAM_Mid",
    memory=("Dedicated_Sram_512KB", "Dedicated_Sram"),
    needs=(("ethosu.vela", "ethos-u"),),
    accelerators=("ethos-u85-512", "ethos-u85-128", "ethos-u85-256", "ethos-u85-1024", "ethos-u85-2048"),
)
