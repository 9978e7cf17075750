"""Layers with int4 weights on dense random codes, and with the largest sums that there can be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qhyvit.graph.ir import INT4, INT8, Graph, Node, Quantization, Tensor
from qhyvit.ops import spec

SIZES = [(1, 2, 1), (3, 6, 5), (7, 30, 9), (16, 64, 40), (33, 512, 17)]  # rows, inputs, outputs
IMAGES = 3


def int4_layers() -> Iterator[tuple[Graph, NDArray[np.int8]]]:
    """Typed graphs of one FULLY_CONNECTED [1, 1, rows, inputs] each, and codes for it, [images, 1, rows, inputs]."""
    for number, (rows, inputs, outputs) in enumerate(SIZES):
        rng = np.random.default_rng(number)
        dense = rng.integers(-7, 8, (outputs, inputs))
        ends = np.where(rng.random((outputs, inputs)) < 0.9, 7, -7)
        for weights, low in ((dense, None), (ends, -128), (-ends, 127)):
            codes = rng.integers(-128, 128, (IMAGES, 1, rows, inputs))
            if low is not None:
                codes = np.where(rng.random(codes.shape) < 0.9, low, codes)
            scales = tuple(float(s) for s in (10 ** rng.uniform(-3, -1.5, outputs)).astype(np.float32))
            zero = int(rng.integers(-128, 128))
            yield _graph(weights.astype(np.int8), scales, zero, rows, rng), codes.astype(np.int8)


def _graph(
    weights: NDArray[np.int8], scales: tuple[float, ...], zero: int, rows: int, rng: np.random.Generator
) -> Graph:
    outputs, inputs = weights.shape
    read, write = float(np.float32(0.04)), float(np.float32(0.03 * np.sqrt(inputs)))
    bias = rng.integers(-3000, 3000, outputs).astype(np.int32)
    steps = tuple(float(np.float32(s * read)) for s in scales)
    axis = 0 if outputs > 1 else None
    tensors = [
        Tensor(0, "x", (1, 1, rows, inputs), INT8, None, Quantization((read,), zero)),
        Tensor(1, "w", weights.shape, INT4, weights, Quantization(scales, 0, axis, 4)),
        Tensor(2, "b", bias.shape, "INT32", bias, Quantization(steps, 0, axis, 32)),
        Tensor(3, "y", (1, 1, rows, outputs), INT8, None, Quantization((write,), int(rng.integers(-128, 128)))),
    ]
    node = Node("FULLY_CONNECTED", spec("FULLY_CONNECTED").attrs(keep_num_dims=True), (0, 1, 2), (3,))
    return Graph({t.id: t for t in tensors}, (node,), (0,), (3,))
