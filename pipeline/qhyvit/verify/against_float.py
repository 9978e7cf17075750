"""The user's own network beside the file: does the edited graph compute it, and does the integer file say what it says?

The reference is the exported float file, run by the interpreter; the file itself was compared with the user's module
when it was exported. Nothing here looks at a graph that was edited but to judge it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.graph.ir import Graph
from qhyvit.sim.checked import EXACT
from qhyvit.sim.run import Executor
from qhyvit.tasks.shared.correlation import correlations
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.task import Alike, Task
from qhyvit.tflite.read import read
from qhyvit.verify.check import Check
from qhyvit_device.manifest import RANDOM_WEIGHTS

UNTRAINED = 0.25  # limit of the correlation where weights are untrained: ranges of noise say little of a network
FLOAT32_ERROR = 1e-3  # of the largest output: thousands of float32 sums in another order; wrong edits are off by more


@dataclass(frozen=True)
class FloatFile:
    """The reference: the exported file and what the export found out about it.

    Args:
        model: the file's bytes.
        facts: of the export: ``float_error`` (largest difference from the user's module over the largest output) and
            ``float_limit``, below which it has to be, ``float_images`` (how many real images that was measured on),
            ``weights``.
        task: what the outputs mean, and ``layout``, how they lie.
        least: share of what float says (or correlation) that the integer file has to keep; None: the task's own limit,
            of untrained weights a lower one.
    """

    model: bytes
    facts: Mapping[str, Any]
    task: Task
    layout: Layout
    least: float | None = None

    @property
    def has_random_weights(self) -> bool:
        """Whether the weights were drawn, so that what the network says means nothing."""
        return self.facts.get("weights") == RANDOM_WEIGHTS


@dataclass(frozen=True)
class AgainstFloat:
    """What was found on ``images`` images.

    Args:
        task: name of the task whose share ``alike`` is; ``kept``: what that share is, in words.
        edited_error: largest difference of the edited float graph's outputs from the reference, over the largest one.
        correlation: mean over the images of the correlation of all outputs; ``lowest``: the least of them.
        doubt: why the correlation is judged and not the share; "" where the share is.
        limit: the share or correlation that was asked for.
        each: see :meth:`qhyvit.tasks.shared.task.Alike.by_name`.
    """

    images: int
    task: str
    kept: str
    edited_error: float
    alike: Alike
    correlation: float
    lowest: float
    doubt: str
    limit: float
    each: Mapping[str, float]

    @property
    def integer_check(self) -> Check:
        """The integer file beside the float file."""
        name = "integer decides as float"
        if self.doubt:
            figures = f"correlation of outputs {self.correlation:.4f} (lowest {self.lowest:.4f}), limit {self.limit:g}"
            text = f"{figures}; {self.alike.text}; judged by correlation: {self.doubt}"
            return Check(name, self.correlation >= self.limit, text)
        least = self.alike.least(self.limit)
        asked = f"limit {self.limit:.0%} {self.kept}" + (f", at least {least:.1%} here" if least < self.limit else "")
        text = f"{self.alike.text}; {asked}; correlation of outputs {self.correlation:.4f}"
        return Check(name, self.alike.share >= least, text)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        alike = {"share": self.alike.share, "text": self.alike.text, "figures": dict(self.alike.figures)}
        return {**vars(self), "alike": alike}


def against_float(
    reference: FloatFile, edited: Graph, pixels: torch.Tensor, outputs: np.ndarray
) -> tuple[AgainstFloat, list[Check]]:
    """Compare the edited graph and the integer file with the float file.

    Args:
        edited: the float graph after all edits (its gates are computed exactly here).
        pixels: float images [N, H, W, C]; ``outputs``: dequantized outputs of the integer file for them, [N, outputs].
    """
    task, expected = reference.task, reference_outputs(reference.model, pixels)
    error, edited_check = _edited(reference.model, edited, pixels, expected)
    alike, agrees = task.alike(expected, outputs, reference.layout), correlations(expected, outputs)
    doubt = "the weights are random" if reference.has_random_weights else alike.doubt
    limit = reference.least
    if limit is None:
        limit = UNTRAINED if doubt else task.limit
    result = AgainstFloat(
        len(expected), task.name, task.kept, error, alike, float(agrees.mean()), float(agrees.min()), doubt, limit,
        alike.by_name(reference.layout),
    )  # fmt: skip
    return result, [*_module_check(reference), edited_check, result.integer_check]


def reference_outputs(model: bytes, pixels: torch.Tensor) -> np.ndarray:
    """Outputs [N, outputs] of the float file, as the interpreter runs it on images [N, H, W, C]."""
    from qhyvit_device.runner import TfliteFile

    file = TfliteFile(model)
    return np.stack([file.run(x).astype(np.float64) for x in pixels.numpy()])


def _edited(model: bytes, edited: Graph, pixels: torch.Tensor, expected: np.ndarray) -> tuple[float, Check]:
    """Error of the edited graph: in float32 against the interpreter; where that is large, in float64 by both graphs."""
    name, largest = "edited graph computes the exported file", max(float(np.abs(expected).max()), 1e-30)
    executor = Executor(edited, exact=True)
    with torch.no_grad():
        found = torch.cat([executor.rows(x[None]) for x in pixels]).numpy()
    error = float(np.abs(found - expected).max()) / largest
    detail = f"largest difference {error:.1e} of the largest output, limit {FLOAT32_ERROR:.0e}"
    if error <= FLOAT32_ERROR:
        return error, Check(name, True, detail)
    both = [Executor(g, torch.float64, exact=True) for g in (read(model), edited)]
    with torch.no_grad():
        a, b = (e.rows(pixels[:4]) for e in both)
    error = float((a - b).abs().max()) / max(float(a.abs().max()), 1e-30)
    return error, Check(name, error <= EXACT, f"{detail}; in float64 {error:.1e}, limit {EXACT:.0e}")


def _module_check(reference: FloatFile) -> list[Check]:
    """What the export found, and whether that is within the limit that it had."""
    facts = reference.facts
    error, limit = facts.get("float_error"), facts.get("float_limit")
    if error is None or limit is None:
        return []
    real = facts.get("float_images", 0)
    where = f"{real} real images and two of noise" if real else "two images of noise"
    detail = f"largest difference {error:.1e} of the largest output, limit {limit:.0e}, on {where}"
    return [Check("exported file computes the model", error < limit, detail)]
