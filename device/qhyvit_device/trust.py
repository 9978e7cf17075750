"""Whether a measurement can be trusted, and the remedy where it can't."""

from __future__ import annotations

from qhyvit_device.board import SINCE_BOOT, Board, BoardState, throttling
from qhyvit_device.statistics import Summary

MOST_SPREAD = 1.2  # p95 / p50
MOST_DRIFT = 0.05  # of a core's clock
MOST_LOAD = 0.3  # of one core, by others, before the run
GOOD_GOVERNORS = ("performance",)


def why_slow(runtime: str) -> str:
    """Why XNNPACK took no op of an int8 model, as far as this can be told, with the remedy."""
    if runtime == "tflite-runtime":
        return "tflite-runtime leaves int8 ops to slow kernels; pip install ai-edge-litert"
    return "XNNPACK took no op, so it runs on slow kernels; is /sys mounted?"


def _clock(before: BoardState, after: BoardState) -> list[str]:
    said = []
    for core, khz in before.frequency_khz.items():
        now = after.frequency_khz.get(core, khz)
        if khz and abs(now - khz) > MOST_DRIFT * khz:
            said.append(
                f"the clock of {core} went from {khz // 1000} to {now // 1000} MHz; use the governor performance"
            )
            break
    if before.governor and not all(g in GOOD_GOVERNORS for g in before.governor.split(", ")):
        said.append(
            f"the governor is {before.governor}; run: echo performance | sudo tee "
            "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        )
    return said


def _power(before: BoardState, after: BoardState) -> list[str]:
    now = sorted({*throttling(before.throttled), *throttling(after.throttled)})
    if now:
        return [f"{', '.join(now)}: use a stronger power supply or better cooling"]
    if before.throttled is not None and after.throttled is not None:
        new = (after.throttled >> SINCE_BOOT) & ~(before.throttled >> SINCE_BOOT)
        if new:
            return [f"{', '.join(throttling(new))} during the run: use a stronger power supply or better cooling"]
    return []


def warnings(
    machine: Board,
    before: BoardState,
    after: BoardState,
    inference: dict[str, Summary],
    partitions: dict[str, int | None],
    runtime: str,
) -> list[str]:
    """What speaks against the figures, with the remedy; ``inference`` and ``partitions`` by model."""
    said = []
    if machine.emulated:
        said.append("this processor is emulated: times say nothing about a board")
    if before.load is not None and before.load > MOST_LOAD:
        said.append(f"other programs kept {before.load:.1f} processors busy before the run; stop them")
    said += _clock(before, after) + _power(before, after)
    for name, s in inference.items():
        if s.p95 > MOST_SPREAD * s.p50:
            said.append(
                f"{name}: p95 is {s.p95 / s.p50:.2f} x p50; something else ran, or the clock changed: run again"
            )
    for name, count in partitions.items():
        if count == 0:
            said.append(f"{name}: {why_slow(runtime)}")
    return said
