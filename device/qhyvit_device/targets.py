"""What a bundle says of its file on the board that it is for, in words: measurements, estimates, published rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qhyvit_device.terminal import shown


def _number(value: Any) -> float | None:
    """A number that can be one; None: it is none."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
    return float(value) if good else None


def target_words(created_by: Mapping[str, Any]) -> str:
    """Of a manifest's ``created_by``; "" where it says nothing, or nothing that can be read."""
    found = created_by.get("target")
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        return ""
    parts, estimated, rules = [], found.get("estimated"), found.get("rules")
    arena, flash = (_number(found.get(f"{name}_bytes")) for name in ("arena", "flash"))
    if arena is not None and flash is not None:
        parts.append(f"arena {arena / 1024:.0f} KiB, measured on a 64-bit processor; flash {flash / 1024:.0f} KiB")
    if isinstance(estimated, Mapping):
        ms, sram, npu, cpu = (_number(estimated.get(name)) for name in ("ms", "sram_kib", "on_npu", "on_cpu"))
        if None not in (ms, sram, npu, cpu):
            parts.append(f"{npu:.0f} operators on the NPU, {cpu:.0f} on the CPU; {ms:.1f} ms and {sram:.0f} KiB SRAM, "
                         f"estimated by Vela")  # fmt: skip
    if isinstance(rules, Mapping):
        mapped, operators = (_number(rules.get(name)) for name in ("mapped", "operators"))
        if None not in (mapped, operators):
            parts.append(f"{mapped:.0f} of {operators:.0f} operators could be mapped by published rules; "
                         "no compiler was run")  # fmt: skip
    return f"{shown(found['name'])}{': ' if parts else ''}{'; '.join(parts)}"
