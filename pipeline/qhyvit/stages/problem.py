"""What a method is given to solve: the exported graph behind its passes, images, the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from qhyvit.targets import Target
from qhyvit.targets import target as find_target
from qhyvit.tasks import task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.work import FACTS, FLOAT, Work

if TYPE_CHECKING:
    from qhyvit.graph.ir import Graph
    from qhyvit.methods.shared.problem import Problem
    from qhyvit.sim.checked import Door


def float_graph(
    work: Work, target: Target | None = None, *, int16: bool = True, door: Door | None = None
) -> Graph:
    """The exported graph behind the passes that the target gets, with its islands marked.

    Args:
        target: None: the default, without float.
        int16: let long softmaxes be int16 (see :func:`qhyvit.lowering.profiles.long_softmaxes`).
        door: tries every pass on its images; None: on random ones.
    """
    from qhyvit.lowering.profiles import long_softmaxes, placed, widened
    from qhyvit.passes import prepared
    from qhyvit.tflite.read import read

    found = target or find_target()
    graph = placed(prepared(work.load(FLOAT, read), found, door), found)
    return widened(graph, long_softmaxes(graph)) if int16 and not found.floats else graph


def problem_of(
    work: Work, images: np.ndarray, *, int16: bool, seed: int, target: Target,
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
    graph = float_graph(work, target, int16=int16, door=door)
    found = task(facts["task"])
    measure = found.measure(layout_of(facts, weights or {}), reference)
    return Problem(graph, pixels, reference, found, measure, door=door, seed=seed, target=target,
                   progress=work.progress, log=work.log, **settings)  # fmt: skip


def layout_of(facts: Mapping[str, Any], weights: Mapping[str, float]) -> Layout:
    """The outputs of an export, with weights by name.

    Raises:
        UsageError: see :meth:`qhyvit.tasks.shared.layout.Layout.weighted`.
    """
    return Layout.of_facts(facts["outputs"]).weighted(weights)


def float_outputs(model: bytes, images: np.ndarray) -> np.ndarray:
    """Outputs [N, outputs], float32, of a float file as the interpreter runs it on images [N, H, W, C]."""
    from qhyvit_device.runner import TfliteFile

    file = TfliteFile(model)
    return np.stack([file.run(x).astype(np.float32) for x in images])
