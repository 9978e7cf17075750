"""LiteRT (TensorFlow Lite) with XNNPACK on the processor of the machine at hand."""

from __future__ import annotations

from qhyvit.targets.shared.target import Target

TARGET = Target("litert", "LiteRT with XNNPACK, x86-64 times", "its interpreter, tensor by tensor")
