"""Targets that tests build for: LiteRT without and with float, and those whose passes differ."""

from __future__ import annotations

from qhyvit.targets import target

INTEGER, CPU = target(), target(integer=False)
BY_PROFILE = {"integer": INTEGER, "cpu": CPU}
KINDS = {**BY_PROFILE, **{name: target(name) for name in ("tflm", "ethos-u55", "ethos-u85")}}
