"""How outputs go together, whatever they mean: what untrained networks are judged by."""

from __future__ import annotations

import numpy as np

from qhyvit.tasks.shared.divergence import SMALLEST_POWER

FEW = 8  # outputs of an image, below which images are correlated in the place of outputs


def _pearson(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    a, b = (x.astype(np.float64) - x.astype(np.float64).mean(axis=axis, keepdims=True) for x in (a, b))
    power = np.sqrt((a * a).sum(axis=axis) * (b * b).sum(axis=axis))
    found: np.ndarray = (a * b).sum(axis=axis) / np.maximum(power, SMALLEST_POWER)
    return found


def correlations(reference: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each image's outputs with the reference's; [B, N] and [B, N] -> [B], float64.

    Of few outputs (:data:`FEW`) it is that of each output over the images, [N].
    """
    return _pearson(reference, outputs, 0 if reference.shape[1] < FEW else 1)
