"""TensorFlow Lite for Microcontrollers: its reference kernels, in a fixed arena of memory.

What it lacks in int8 was found by running every op that the project knows. int8 SOFTMAX ends the process where a row's
exponentials add up to 512, and SUM gives wrong codes.
"""

from __future__ import annotations

from qhyvit.ops.shared.spec import Kernel
from qhyvit.targets.shared.target import PLAIN, Target

TARGET = Target(
    "tflm",
    "TensorFlow Lite for Microcontrollers",
    "its own interpreter (package tflite-micro), tensor by tensor, all codes equal",
    sizes=PLAIN,
    floats=False,
    islands=False,
    int4=False,
    tables=frozenset({"GELU", "LOG", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "SQRT"}),
    lacks=frozenset({"SPACE_TO_BATCH_ND", "SUM"}),
    kernels=Kernel.TFLM,
    needs=(("tflite_micro", "tflm"),),
)
