"""Constants on their int8 grids: as codes for the file, as values for searches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from qhyvit import affine
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph
from qhyvit.plan import TensorQuant


def constant_codes(data: NDArray[np.generic], quant: TensorQuant) -> NDArray[np.int8]:
    """int8 codes of a constant. Those of weights leave out the lowest one: [-127, 127]."""
    low, high = quant.limits
    grid = affine.Grid(low + (quant.axis is not None), high)
    return affine.quantize(data, *_steps(quant), grid, quant.axis).astype(np.int8)


def on_grid(data: NDArray[np.generic], quant: TensorQuant) -> NDArray[np.float32]:
    """Values of a constant behind its rounding."""
    values = affine.dequantize(constant_codes(data, quant), *_steps(quant), quant.axis)
    return np.asarray(values, np.float32)  # a scalar stays an array


def constants_on_grid_of(graph: Graph, quants: Mapping[str, TensorQuant]) -> Graph:
    """Round every constant that ``quants`` names to its grid; biases stay (the file holds them in int32)."""
    values = {}
    for tensor in graph.tensors.values():
        if tensor.data is not None and tensor.name in quants and tensor.dtype == "FLOAT32":
            values[tensor.id] = on_grid(tensor.data, quants[tensor.name])
    return edit.with_constants(graph, values)


def _steps(quant: TensorQuant) -> tuple[object, object]:
    """Scale and zero point, one each or one a channel."""
    return (quant.scale[0], quant.zero_point[0]) if quant.axis is None else (quant.scale, quant.zero_point)
