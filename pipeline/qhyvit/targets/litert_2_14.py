"""TensorFlow Lite 2.14, the oldest release that was tried: no int16, and no int8 LOG."""

from __future__ import annotations

from qhyvit.targets.shared.target import Target

TARGET = Target(
    "litert-2.14",
    "TensorFlow Lite 2.14 and later",
    "the interpreter here, tensor by tensor, and the ops that 2.14 has",
    int16=False,
    islands=False,
    int4=False,
    lacks=frozenset({"LOG"}),
)
