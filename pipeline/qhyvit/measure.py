"""How far outputs are from those of the unedited float network: what calibration lowers and what verification judges.

Source of ``decisions``: Q-HyViT, Algorithm 1, KL(float || quantized) of the class probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qhyvit.errors import UsageError

if TYPE_CHECKING:
    import torch

SMALLEST_POWER = 1e-12  # outputs that are all alike have no variance to divide by


@dataclass(frozen=True)
class Measure:
    """One way to compare outputs.

    Args:
        name: how the user calls it.
        summary: one line.
        distance: (reference [B, N], outputs [B, N]) -> distance of each image [B], differentiable, 0 where equal.
        far: distance behind the first ranges from which on accuracy is worth more than time, so that islands of 16 bits
            or float are made for it. Of squared errors over variance, a transformer with massive channels has 0.18 to
            0.25. mobilevitv2_075 has a KL of 0.12 to 0.19 there, and 97 of 100 decisions alike without islands, which
            would cost it as much time as int8 saves.
        thorough: a search sees all images, and a mirrored crop of each: where every output counts, rare large values
            of single channels decide, and a few images show few of them.
    """

    name: str
    summary: str
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    far: float
    thorough: bool = False


def kl(reference: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """KL(softmax(reference) || softmax(outputs)) of each image; [B, N] and [B, N] -> [B]."""
    # torch.log_softmax adds up in an order of each processor's own
    target, found = (x - x.logsumexp(dim=1, keepdim=True) for x in (reference, outputs))
    return (target.exp() * (target - found)).sum(dim=1)


def squared_error(reference: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Squared error of each image's outputs over their variance; [B, N] and [B, N] -> [B].

    1 - correlation is half of it where it is small.
    """
    centred = reference - reference.mean(dim=1, keepdim=True)
    power = (centred * centred).sum(dim=1).clamp_min(SMALLEST_POWER)
    return ((outputs - reference) ** 2).sum(dim=1) / power


def correlations(reference: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each image's outputs with the reference's; [B, N] and [B, N] -> [B], float64."""
    a, b = (x.astype(np.float64) - x.astype(np.float64).mean(axis=1, keepdims=True) for x in (reference, outputs))
    power = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    found: np.ndarray = (a * b).sum(axis=1) / np.maximum(power, SMALLEST_POWER)
    return found


DECISIONS = Measure("decisions", "KL of the class probabilities; the best class of each image", kl, far=0.5)
CORRELATION = Measure(
    "correlation", "squared error of all outputs; their correlation for each image", squared_error, far=0.05,
    thorough=True,
)  # fmt: skip
MEASURES = {m.name: m for m in (DECISIONS, CORRELATION)}


def measure(name: str) -> Measure:
    """One measure by name.

    Raises:
        UsageError: unknown name.
    """
    if name not in MEASURES:
        raise UsageError(f"unknown measure {name!r}; there are {', '.join(MEASURES)}")
    return MEASURES[name]
