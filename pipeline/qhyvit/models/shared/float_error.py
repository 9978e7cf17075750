"""How far a float file is from the torch module that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from qhyvit.models.shared.outputs import tensors_of
from qhyvit.models.shared.shape import Shape
from qhyvit_device.runner import TfliteFile

# Of the largest output. MobileViTv2's norms sum up to M = 262,144 squares one after the other in float32: a relative
# error of about sqrt(M) * 2^-24 = 3e-5 each, 21 norms in a row. A wrong equivalent is off by 1e-2 and more.
FLOAT_TOLERANCE = 5e-4
APPLIED: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "SOFTMAX": lambda x: x.softmax(-1), "LOG_SOFTMAX": lambda x: x.log_softmax(-1), "LOGISTIC": lambda x: x.sigmoid(),
}  # fmt: skip


def float_error(
    data: bytes, reference: nn.Module, shape: Shape, seed: int = 0, images: np.ndarray | None = None, *,
    cut: str = "",
) -> float:  # fmt: skip
    """Largest difference of the file's outputs from the reference module's, relative to the largest of its image.

    Args:
        reference: in eval mode, takes [1, C, H, W]; gives what the file does, in its order.
        images: real ones, normalised, [N, H, W, C], beside two of noise drawn by ``seed``; None: noise alone.
        cut: the op that the module ends in and the file has not (:data:`APPLIED`): it is computed here; "" for none.
    """
    noise = np.random.default_rng(seed).random((2, *shape), dtype=np.float32)
    images = noise if images is None else np.concatenate([noise, images])
    file, errors = TfliteFile(data), []
    for x in images.astype(np.float32):
        found = [torch.from_numpy(y) for y in file.invoke(x)]
        with torch.no_grad():
            expected = [*tensors_of(reference(torch.from_numpy(x[None]).permute(0, 3, 1, 2))).values()]
        for y, target in zip(found, expected, strict=True):
            y = APPLIED[cut](y) if cut else y
            errors.append(float((y - target).abs().max() / target.abs().max()))
    return float(np.max(errors))  # NaN where one is
