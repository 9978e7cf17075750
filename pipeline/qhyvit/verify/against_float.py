"""The user's own network beside the file: does the edited graph compute it, and does the integer file do as it does?

The reference is the exported float file, run by the interpreter; the file itself was compared with the user's module
when it was exported. Nothing here looks at a graph that was edited but to judge it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.graph.ir import Graph
from qhyvit.measure import CORRELATION, correlations
from qhyvit.plan import QuantPlan
from qhyvit.sim.checked import EXACT
from qhyvit.sim.run import Executor
from qhyvit.tflite.read import read
from qhyvit.verify.check import Check

LEAST_AGREEMENT = 0.9  # of the images (or of the outputs' variance, as a correlation), by default
UNTRAINED = 0.25  # limit of the correlation where weights are untrained: ranges of noise say little of a network
FLOAT32_ERROR = 1e-3  # of the largest output: thousands of float32 sums in another order; wrong edits are off by more
SURE = 0.5  # probability of the best class from which on the float network is sure
LEAST_SURE = 0.25  # of the images; below, there are hardly decisions to compare
DEVIATIONS = 2.0  # how far a share of few images may lie below a limit by chance


@dataclass(frozen=True)
class FloatFile:
    """The reference: the exported file and what the export found out about it.

    Args:
        model: the file's bytes.
        facts: of the export: ``float_error`` (largest difference from the user's module over the largest output),
            ``float_images`` (how many real images that was measured on), ``weights``.
        least: share of images (or correlation) that the integer file has to keep; None: the default, which asks less of
            untrained weights.
    """

    model: bytes
    facts: Mapping[str, Any]
    least: float | None = None

    @property
    def has_random_weights(self) -> bool:
        """Whether the weights were drawn, so that what the network decides means nothing."""
        return self.facts.get("weights") == "random"


@dataclass(frozen=True)
class AgainstFloat:
    """What was found on ``images`` images.

    Args:
        edited_error: largest difference of the edited float graph's outputs from the reference, over the largest one.
        agree: images with the same best output; ``sure``: images of which the float network is sure, a probability of
            half or more; ``sure_agree``: those of them with the same best output.
        correlation: mean over the images of the correlation of all outputs; ``lowest``: the least of them.
        judged: "decisions", or "correlation" where decisions mean little; ``why``: the reason.
        limit: the share or correlation that was asked for.
    """

    images: int
    edited_error: float
    agree: int
    sure: int
    sure_agree: int
    correlation: float
    lowest: float
    judged: str
    why: str
    limit: float

    @property
    def least_images(self) -> int:
        """The fewest sure images that have to agree: the limit's share, less what chance allows with so few."""
        spread = DEVIATIONS * math.sqrt(self.sure * self.limit * (1 - self.limit))
        return max(math.ceil(self.limit * self.sure - spread), 0)

    @property
    def integer_check(self) -> Check:
        """The integer file beside the float file."""
        name = "integer decides as float"
        alike = f"{self.agree} of {self.images} images alike"
        if self.judged == CORRELATION.name:
            passed = self.correlation >= self.limit
            figures = f"correlation of outputs {self.correlation:.4f} (lowest {self.lowest:.4f}), limit {self.limit:g}"
            return Check(name, passed, f"{figures}; {alike}; judged by correlation: {self.why}")
        figures = f"{alike}; {self.sure_agree} of {self.sure} of which float is sure, at least {self.least_images}"
        passed = self.sure_agree >= self.least_images
        return Check(name, passed, f"{figures} (limit {self.limit:.0%}); correlation of outputs {self.correlation:.4f}")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "least_images": self.least_images}


def against_float(
    reference: FloatFile, edited: Graph, plan: QuantPlan, pixels: torch.Tensor, outputs: np.ndarray
) -> tuple[AgainstFloat, list[Check]]:
    """Compare the edited graph and the integer file with the float file.

    Args:
        edited: the float graph after all edits (its gates are computed exactly here).
        pixels: float images [N, H, W, 3]; ``outputs``: dequantized outputs of the integer file for them, [N, outputs].
    """
    expected = reference_outputs(reference.model, pixels)
    error, edited_check = _edited(reference.model, edited, pixels, expected)
    best, found = expected.argmax(1), outputs.argmax(1)
    sure = _probability(expected) >= SURE
    agrees = correlations(expected, outputs)
    judged, why = _judged_by(reference, plan, float(sure.mean()))
    limit = reference.least
    if limit is None:
        limit = LEAST_AGREEMENT if judged == plan.measure else UNTRAINED
    result = AgainstFloat(
        len(expected), error, int((best == found).sum()), int(sure.sum()), int((best == found)[sure].sum()),
        float(agrees.mean()), float(agrees.min()), judged, why, limit,
    )  # fmt: skip
    return result, [*_module_check(reference), edited_check, result.integer_check]


def reference_outputs(model: bytes, pixels: torch.Tensor) -> np.ndarray:
    """Outputs [N, outputs] of the float file, as the interpreter runs it on images [N, H, W, 3]."""
    from qhyvit_device.runner import TfliteFile

    file = TfliteFile(model)
    return np.stack([np.asarray(file.run(x), np.float64).ravel() for x in pixels.numpy()])


def _probability(outputs: np.ndarray) -> np.ndarray:
    """Softmax probability of the best output of each image, [N]."""
    shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    found: np.ndarray = 1.0 / shares.sum(axis=1)
    return found


def _judged_by(reference: FloatFile, plan: QuantPlan, sure_share: float) -> tuple[str, str]:
    if plan.measure == CORRELATION.name:
        return CORRELATION.name, "the build's measure"
    if reference.has_random_weights:
        return CORRELATION.name, "the weights are random"
    if sure_share < LEAST_SURE:
        return CORRELATION.name, f"float is sure of {sure_share:.0%} of the images only, as untrained weights are"
    return plan.measure, ""


def _edited(model: bytes, edited: Graph, pixels: torch.Tensor, expected: np.ndarray) -> tuple[float, Check]:
    """Error of the edited graph: in float32 against the interpreter; where that is large, in float64 by both graphs."""
    name, largest = "edited graph computes the exported file", max(float(np.abs(expected).max()), 1e-30)
    executor = Executor(edited, exact=True)
    with torch.no_grad():
        found = torch.cat([executor.logits(x[None]) for x in pixels]).numpy()
    error = float(np.abs(found - expected).max()) / largest
    detail = f"largest difference {error:.1e} of the largest output, limit {FLOAT32_ERROR:.0e}"
    if error <= FLOAT32_ERROR:
        return error, Check(name, True, detail)
    both = [Executor(g, torch.float64, exact=True) for g in (read(model), edited)]
    with torch.no_grad():
        a, b = (e.logits(pixels[:4]) for e in both)
    error = float((a - b).abs().max()) / max(float(a.abs().max()), 1e-30)
    return error, Check(name, error <= EXACT, f"{detail}; in float64 {error:.1e}, limit {EXACT:.0e}")


def _module_check(reference: FloatFile) -> list[Check]:
    """What the export found: its own limit was kept, or there would be no file."""
    facts = reference.facts
    if "float_error" not in facts:
        return []
    real = facts.get("float_images", 0)
    where = f"{real} real images and two of noise" if real else "two images of noise"
    detail = f"largest difference {facts['float_error']:.1e} of the largest output, on {where}"
    return [Check("exported file computes the module", True, detail)]
