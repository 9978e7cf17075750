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


@dataclass(frozen=True)
class Decisions:
    """Counts over ``images``: simulation and file agree, file and float agree, output codes equal in simulation."""

    images: int
    simulation_agrees: int
    float_agrees: int
    equal_codes: float

    @property
    def share(self) -> float:
        """Share of images on which simulation and file decide alike."""
        return self.simulation_agrees / max(self.images, 1)


def simulated_codes(
    shipped: Graph, quants: Mapping[str, TensorQuant], pixels: torch.Tensor, *, arm64: bool
) -> np.ndarray:
    """Output codes [N, classes], int64, that the file gives for images [N, H, W, 3] by the simulation."""
    exact = quantized_biases(constants_on_grid_of(shipped, quants), quants)
    executor, hook = Executor(exact, torch.float64), ExactQuant(exact, quants, arm64=arm64)
    out = quants[shipped.tensors[shipped.outputs[0]].name]
    with torch.no_grad():
        logits = torch.cat([executor.logits(x[None], hook) for x in pixels]).numpy()
    found: np.ndarray = np.rint(logits / out.scale[0]).astype(np.int64) + out.zero_point[0]
    return found


def decisions(
    folded: Graph, shipped: Graph, quants: Mapping[str, TensorQuant], model: bytes, pixels: torch.Tensor,
    codes: Sequence[np.ndarray], runtime: str = "litert",
) -> Decisions:  # fmt: skip
    """Run file, simulation and float graph on the same images ([N, H, W, 3] float, and their input codes)."""
    interpreter = make_interpreter(model, runtime)
    found = np.stack([run(interpreter, c).ravel() for c in codes]).astype(np.int64)
    sim_codes = simulated_codes(shipped, quants, pixels, arm64=platform.machine() == "aarch64")
    plain = Executor(folded)
    with torch.no_grad():
        floats = torch.cat([plain.logits(x[None]) for x in pixels]).numpy()
    best = found.argmax(1)
    return Decisions(
        len(codes), int((sim_codes.argmax(1) == best).sum()), int((floats.argmax(1) == best).sum()),
        float((sim_codes == found).mean()),
    )  # fmt: skip
