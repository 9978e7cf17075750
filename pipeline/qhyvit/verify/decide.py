"""End to end: does the simulated network decide as the file does, image by image?"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from qhyvit.graph.ir import Graph
from qhyvit.plan import TensorQuant
from qhyvit.sim.fakequant import ExactQuant, quantized_biases
from qhyvit.sim.run import Executor
from qhyvit.tflite.write import constants_on_grid_of
from qhyvit.verify.probe import make_interpreter, run

TIE = 1  # codes: outputs that near to the best are a tie, which one kernel rounds this way and another that


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


def simulated_codes(
    shipped: Graph, quants: Mapping[str, TensorQuant], pixels: torch.Tensor, int16: Mapping[str, float] | None = None,
    *, arm64: bool,
) -> np.ndarray:  # fmt: skip
    """Output codes [N, outputs], int64, that the file gives for images [N, H, W, 3] by the simulation.

    Args:
        int16: scales of what int16 islands compute, by name.
    """
    exact = quantized_biases(constants_on_grid_of(shipped, quants), quants)
    executor, hook = Executor(exact, torch.float64), ExactQuant(exact, quants, int16, arm64=arm64)
    out = quants[shipped.tensors[shipped.outputs[0]].name]
    with torch.no_grad():
        logits = torch.cat([executor.logits(x[None], hook) for x in pixels]).numpy()
    found: np.ndarray = np.rint(logits / out.scale[0]).astype(np.int64) + out.zero_point[0]
    return found


def file_codes(model: bytes, codes: Sequence[np.ndarray], runtime: str = "litert") -> np.ndarray:
    """Output codes [N, outputs], int64, that the file gives for input codes [1, H, W, 3]."""
    interpreter = make_interpreter(model, runtime)
    return np.stack([run(interpreter, c).ravel() for c in codes]).astype(np.int64)


def decisions(
    shipped: Graph, quants: Mapping[str, TensorQuant], found: np.ndarray, pixels: torch.Tensor,
    int16: Mapping[str, float] | None = None,
) -> Decisions:  # fmt: skip
    """Compare the file's output codes ``found`` [N, outputs] with the simulation's on the same images [N, H, W, 3]."""
    simulated = simulated_codes(shipped, quants, pixels, int16, arm64=platform.machine() == "aarch64")
    best = found.argmax(1)
    behind = simulated.max(axis=1) - simulated[np.arange(len(best)), best]
    return Decisions(len(found), int((behind <= TIE).sum()), float((simulated == found).mean()))
