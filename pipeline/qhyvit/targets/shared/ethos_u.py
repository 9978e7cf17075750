"""What Arm's Ethos-U microNPUs have in common: Vela compiles a file for them, and refuses what this says."""

from __future__ import annotations

from dataclasses import replace

from qhyvit.targets.shared.target import PLAIN, Target

ETHOS_U = Target(
    "ethos-u",
    "an Arm Ethos-U",
    "the interpreter here, before Vela compiles it; times and memory are Vela's estimates",
    sizes=PLAIN,
    floats=False,
    islands=False,
    int4=False,
    fast_gelu=False,
    longest_mean=4096,
    needs=(("ethosu.vela", "ethos-u"),),
)
# of the two older ones
FIRST = replace(ETHOS_U, longest_stride=3, longest_product=65536, largest_transpose=65536)
