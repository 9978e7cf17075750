"""LOGISTIC and TANH of TensorFlow Lite Micro: a function of Q4.27, and the ends of the grid beyond its reach."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from qhyvit.graph.ir import Quantization
from qhyvit.ops.shared.fixed_point import halved, multiplier_of, scaled
from qhyvit.ops.shared.integer import looked_up
from qhyvit.ops.shared.spec import Integer

INTEGER_BITS = 4  # of what the function reads
FRACTION_BITS = 31 - INTEGER_BITS


def within_reach(function: Callable[[np.ndarray], np.ndarray], bits: int) -> Integer:
    """Kernels of int8 codes.

    Args:
        function: Q4.27 to Q0.31.
        bits: fraction bits of the output's grid.
    """

    def steps(x: np.ndarray, read: Quantization, write: Quantization) -> np.ndarray:
        multiplier, shift = multiplier_of(read.scale[0] * 2**FRACTION_BITS)
        reach = math.floor((2**INTEGER_BITS - 1) * 2**FRACTION_BITS / 2.0**shift)
        found = halved(function(scaled(np.clip(x, -reach, reach), multiplier, shift)), 31 - bits)
        low, high = (end - write.zero_point for end in write.limits)
        return np.where(x <= -reach, low, np.where(x >= reach, high, found))

    return looked_up(steps)
