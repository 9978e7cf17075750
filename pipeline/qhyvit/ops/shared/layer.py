"""An op with weights in its graph: its data, weight and bias, and the weight as matrices [groups, out, in]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.ops.shared.layer_view import LayerView
from qhyvit.ops.shared.spec import Shape


@dataclass(frozen=True)
class Layer:
    """An op with weights in its graph: ids of its data, weight and bias (-1: none), and the view with its shapes."""

    node: Node
    view: LayerView
    data: int
    weight: int
    bias: int
    groups: int
    axis: int
    weight_shape: Shape
    data_shape: Shape
    out_shape: Shape

    def rows(self, weight: NDArray[Any]) -> torch.Tensor:
        """An array of the weight's shape as [G, O, K] in float64."""
        return self.view.rows(torch.from_numpy(np.asarray(weight, np.float64)), self.groups)

    def weight_of(self, rows: torch.Tensor) -> NDArray[Any]:
        """The inverse of :meth:`rows`."""
        return self.view.weight_of(rows, self.weight_shape).numpy()

    def patches(self, x: torch.Tensor) -> torch.Tensor:
        """What each output position reads of the data ``x`` [B, *file shape]: [G, samples, K]."""
        return self.view.patches(x, self.weight_shape, self.out_shape, self.node.attrs, self.groups)

    def outputs(self, y: torch.Tensor) -> torch.Tensor:
        """The op's output [.., *file shape] as [G, samples, O]."""
        return y.reshape(-1, self.groups, y.shape[-1] // self.groups).transpose(0, 1)

    def per_channel(self, values: torch.Tensor) -> torch.Tensor:
        """One value for each output channel as [G, O, 1]."""
        return values.reshape(self.groups, -1, 1)

    def data_channels(self) -> NDArray[np.int64] | None:
        """The channel of the data (its last axis) that each column reads, [G, K]; None where one reads several."""
        channels, columns = self.data_shape[-1], math.prod(self.weight_shape) // self.weight_shape[self.axis]
        size = channels // self.groups
        if channels % self.groups or columns % size:
            return None
        return np.arange(channels).reshape(self.groups, 1, size).repeat(columns // size, 1).reshape(self.groups, -1)

    def along_data(self, values: NDArray[Any]) -> NDArray[Any] | None:
        """One value for each channel of the data, [C], where the weight multiplies it: the weight's shape, or None."""
        channels = self.data_channels()
        if channels is None or len(values) != self.data_shape[-1]:
            return None
        columns = torch.from_numpy(np.asarray(values, np.float64)[channels])[:, None, :]  # [G, 1, K]
        return self.weight_of(columns.expand(-1, self.weight_shape[self.axis] // self.groups, -1))

    @property
    def out(self) -> int:
        """Id of the output."""
        return self.node.outputs[0]

    @property
    def mixes_channels(self) -> bool:
        """Whether an output reads more than one channel of the data: no for depthwise convolutions."""
        return self.groups < self.data_shape[-1]


def layer_of(graph: Graph, node: Node) -> Layer | None:
    """The layer that ``node`` is; None if it has no weights."""
    op = spec(node.op)
    if op.layer is None:
        return None
    data, weight = node.inputs[op.data_input], node.inputs[op.weight_input]
    bias = node.inputs[op.bias_input] if len(node.inputs) > op.bias_input else -1
    shapes = tuple(graph.tensors[t].shape for t in (weight, data, node.outputs[0]))
    return Layer(node, op.layer, data, weight, bias, op.layer.groups(shapes[1], shapes[0]), op.weight_axis, *shapes)


def layers(graph: Graph) -> list[Layer]:
    """Every op with weights, in execution order."""
    return [layer for node in graph.nodes if (layer := layer_of(graph, node)) is not None]
