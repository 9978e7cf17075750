"""What a method is given to solve: the exported graph behind its passes, images, the reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qhyvit.tasks import task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.work import FACTS, FLOAT, Work

if TYPE_CHECKING:
    from qhyvit.graph.ir import Graph
    from qhyvit.latency.profile import LatencyProfile
    from qhyvit.methods.shared.problem import Problem
    from qhyvit.sim.checked import Door


def float_graph(
    work: Work, profile: str = "integer", *, int16: bool = True, latency: LatencyProfile | None = None,
    door: Door | None = None,
) -> Graph:  # fmt: skip
    """The exported graph behind the passes that the profile gets, with its islands marked.

    Args:
        int16: let long softmaxes be int16 (see :func:`qhyvit.lowering.profiles.long_softmaxes`).
        latency: what decides about the islands; None: the default.
        door: tries every pass on its images; None: on random ones.
    """
    from qhyvit.lowering.profiles import long_softmaxes, widened, with_profile
    from qhyvit.passes import prepared
    from qhyvit.tflite.read import read

    graph = prepared(work.load(FLOAT, read), profile, door, latency)
    graph = with_profile(graph, profile, latency)
    return widened(graph, long_softmaxes(graph)) if int16 and profile == "integer" else graph


def latency_of(path: Path | None) -> LatencyProfile:
    """The latency profile of a file, a bench file or a processor's name; None: the package's own.

    Raises:
        InputError: there is none of it.
    """
    from qhyvit.latency.fit import load
    from qhyvit.latency.profile import default_profile

    return default_profile() if path is None else load(path)


def problem_of(
    work: Work, images: np.ndarray, *, int16: bool, seed: int, profile: str, latency: LatencyProfile,
    weights: Mapping[str, float] | None = None, **settings: Any,
) -> Problem:  # fmt: skip
    """The exported graph behind its passes, with the outputs of the exported file on ``images`` [N, H, W, C].

    Args:
        weights: of outputs by name, see :meth:`qhyvit.tasks.shared.layout.Layout.weighted`.
    """
    import torch

    from qhyvit.methods.shared.problem import Problem
    from qhyvit.sim.checked import Door

    facts = work.json(FACTS)
    pixels, reference = torch.from_numpy(images), torch.from_numpy(float_outputs(work.read(FLOAT), images))
    door = Door(pixels, seed, work.log)
    graph = float_graph(work, profile, int16=int16, latency=latency, door=door)
    found = task(facts["task"])
    measure = found.measure(Layout.of_facts(facts["outputs"]).weighted(weights or {}), reference)
    return Problem(graph, pixels, reference, found, measure, door=door, seed=seed, profile=profile,
                   latency=latency, progress=work.progress, log=work.log, **settings)  # fmt: skip


def float_outputs(model: bytes, images: np.ndarray) -> np.ndarray:
    """Outputs [N, outputs], float32, of a float file as the interpreter runs it on images [N, H, W, C]."""
    from qhyvit_device.runner import TfliteFile

    file = TfliteFile(model)
    return np.stack([file.run(x).astype(np.float32) for x in images])
