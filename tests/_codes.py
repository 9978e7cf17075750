"""Codes of images on the grid that a solution chose for a graph's input."""

import numpy as np
import torch

from qhyvit import affine
from qhyvit.methods.shared.problem import Solution


def input_codes(solution: Solution, images: torch.Tensor, name: str = "x") -> list[np.ndarray]:
    """[N, ..] float -> N arrays [1, ..] int8."""
    quant = solution.tensors[name]
    grid = quant.scale[0], quant.zero_point[0], affine.grid()
    return [affine.quantize(image[None].numpy(), *grid).astype(np.int8) for image in images]
