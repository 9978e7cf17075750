"""Arm Ethos-U65 (NXP i.MX 93) by its compiler Vela; names count multiply-accumulates a cycle."""

from __future__ import annotations

from qhyvit.targets.shared.target import Target

TARGET = Target(
    "ethos-u65",
    "Arm Ethos-U65 (NXP i.MX 93)",
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
    system="Ethos_U65_High_End",
    memory=("Dedicated_Sram_384KB", "Dedicated_Sram_512KB", "Dedicated_Sram"),
    needs=(("ethosu.vela", "ethos-u"),),
    accelerators=("ethos-u65-256", "ethos-u65-512"),
)
