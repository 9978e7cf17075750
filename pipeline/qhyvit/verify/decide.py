"""End to end: does the simulated network decide as the file does, image by image?"""

from __future__ import annotations

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


def decisions(
    folded: Graph, shipped: Graph, quants: Mapping[str, TensorQuant], model: bytes, pixels: torch.Tensor,
    codes: Sequence[np.ndarray], runtime: str = "litert",
) -> Decisions:  # fmt: skip
    """Run file, simulation and float graph on the same images ([N, H, W, 3] float, and their input codes)."""
    interpreter = make_interpreter(model, runtime)
    found = np.stack([run(interpreter, c).ravel() for c in codes]).astype(np.int64)
    exact = quantized_biases(constants_on_grid_of(shipped, quants), quants)
    simulated, plain, hook = Executor(exact, torch.float64), Executor(folded), ExactQuant(exact, quants)
    out = quants[shipped.tensors[shipped.outputs[0]].name]
    with torch.no_grad():
        sim = torch.cat([simulated.logits(x[None], hook) for x in pixels]).numpy()
        floats = torch.cat([plain.logits(x[None]) for x in pixels]).numpy()
    sim_codes = np.rint(sim / out.scale[0]).astype(np.int64) + out.zero_point[0]
    best = found.argmax(1)
    return Decisions(
        len(codes), int((sim_codes.argmax(1) == best).sum()), int((floats.argmax(1) == best).sum()),
        float((sim_codes == found).mean()),
    )  # fmt: skip
