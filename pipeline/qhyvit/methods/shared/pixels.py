"""The input's own grid: images have 256 values, and where all channels share them int8 holds them without rounding.

Source: pixels p in 0 .. 255 become (p / 255 - mean) / std; with one mean and std for all channels these are evenly
spaced, and with 0 among them TFLite's zero point can name it.
"""

from __future__ import annotations

import numpy as np
import torch

from qhyvit import affine
from qhyvit.plan import Choice, TensorQuant

PIXELS = "pixels"  # the observer of such a grid: no search and no learning improves on it
OFF = 1e-3  # of a step: what float32 leaves of whole numbers


def pixel_quant(images: torch.Tensor, bits: int = 8) -> TensorQuant | None:
    """The grid on which all values of ``images`` [N, ...] lie, 0 too; None where there is none of 256 codes."""
    values = np.unique(images.numpy()).astype(np.float64)
    if bits < 8 or not 2 <= len(values) <= 256:
        return None
    whole = values[-1] - values[0]
    step = whole / np.rint(whole / np.diff(values).min())
    steps = values / step
    lowest, highest = min(np.rint(steps[0]), 0.0), max(np.rint(steps[-1]), 0.0)
    if np.abs(steps - np.rint(steps)).max() > OFF or highest - lowest > affine.grid(bits).levels:
        return None
    zero = int(affine.grid(bits, centred=False).qmin - lowest)
    return TensorQuant((float(np.float32(step)),), (zero,), choice=Choice(observer=PIXELS), bits=bits, low=-128)
