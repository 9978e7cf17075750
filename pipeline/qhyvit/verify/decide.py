"""End to end: does the typed graph decide as the file does, image by image?"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qhyvit.graph.ir import Graph
from qhyvit.ops.shared.spec import Kernel
from qhyvit.sim.integer import IntegerExecutor

TIE = 1  # codes: outputs that near to the best are a tie, which one kernel rounds this way and another that
HERE = Kernel.ARM64 if platform.machine() == "aarch64" else Kernel.X86


@dataclass(frozen=True)
class Decisions:
    """Counts over ``images``: simulation and file agree (ties count), output codes that are equal in both."""

    images: int
    simulation_agrees: int
    equal_codes: float

    @property
    def share(self) -> float:
        """Share of images on which simulation and file decide alike."""
        return self.simulation_agrees / max(self.images, 1)


def simulated_codes(typed: Graph, codes: Iterable[NDArray[np.int8]], kernel: Kernel = HERE) -> NDArray[np.int64]:
    """Output codes [N, outputs] that a typed graph gives for input codes [1, H, W, 3], by its kernels' arithmetic."""
    executor = IntegerExecutor(typed, kernel)
    found = (executor.run(x) for x in codes)
    return np.stack([np.concatenate([values[t].ravel() for t in typed.outputs]) for values in found])


def output_values(typed: Graph, codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """What output codes [N, outputs] of a typed graph stand for."""
    parts, start = [], 0
    for tensor in (typed.tensors[t] for t in typed.outputs):
        size, quant = math.prod(tensor.shape), tensor.quantization
        assert quant is not None
        parts.append((codes[:, start : start + size] - quant.zero_point) * quant.scale[0])
        start += size
    return np.concatenate(parts, axis=1)


def decisions(found: NDArray[np.int64], simulated: NDArray[np.int64]) -> Decisions:
    """Compare the file's output codes with the simulation's on the same images, [N, outputs] each."""
    best = found.argmax(1)
    behind = simulated.max(axis=1) - simulated[np.arange(len(best)), best]
    return Decisions(len(found), int((behind <= TIE).sum()), float((simulated == found).mean()))
