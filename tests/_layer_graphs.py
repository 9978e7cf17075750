"""Small float graphs, one for each kind of layer: image -> convolution -> the layer -> what reads it -> logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec

SIZE, CHANNELS, CLASSES = 8, 8, 5


class Maker:
    """Adds tensors and nodes to a graph that begins with an image."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: dict[int, Tensor] = {}
        self.nodes: list[Node] = []
        self.image = self.add("image", (1, SIZE, SIZE, 3))

    def add(self, name: str, shape: tuple[int, ...], data: Any = None) -> int:
        key = len(self.tensors)
        dtype = "FLOAT32" if data is None else str(data.dtype).upper()
        self.tensors[key] = Tensor(key, f"{key}.{name}", tuple(shape), dtype, data)
        return key

    def draw(self, *shape: int, loud: bool = False) -> int:
        """A constant; ``loud``: its last axis has channels of very different size."""
        size = 1.5 / np.sqrt(max(np.prod(shape[1:-1]), 1) * shape[-1])
        data = self.rng.normal(size=shape) * size
        if loud:
            data *= np.geomspace(0.2, 5, shape[-1])
        return self.add("constant", shape, data.astype(np.float32))

    def ints(self, *values: Any) -> int:
        return self.add("ints", np.shape(values), np.array(values, np.int32))

    def op(self, name: str, *inputs: int, **attrs: Any) -> int:
        made = spec(name).attrs(**attrs)
        shapes = [self.tensors[t].shape for t in inputs]
        constants = [d if (d := self.tensors[t].data) is not None and d.dtype != np.float32 else None for t in inputs]
        out = self.add(name.lower(), spec(name).infer_shape(shapes, made, constants))
        self.nodes.append(Node(name, made, inputs, (out,), ""))
        return out

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self.tensors[tensor].shape

    def conv(self, x: int, out: int, k: int = 1, groups: int = 1, loud: bool = False, **attrs: Any) -> int:
        weight = self.draw(out, k, k, self.shape(x)[3] // groups)
        bias = self.draw(out, loud=True) if loud else self.draw(out)
        return self.op("CONV_2D", x, weight, bias, **attrs)

    def depthwise(self, x: int, k: int = 3, m: int = 1, **attrs: Any) -> int:
        channels = self.shape(x)[3] * m
        return self.op("DEPTHWISE_CONV_2D", x, self.draw(1, k, k, channels), self.draw(channels), depth_multiplier=m,
                       **attrs)  # fmt: skip

    def transposed(self, x: int, out: int, k: int, stride: int, size: int, **attrs: Any) -> int:
        shape, weight = self.ints(1, size, size, out), self.draw(out, k, k, self.shape(x)[3])
        attrs |= {"stride_h": stride, "stride_w": stride}
        return self.op("TRANSPOSE_CONV", shape, weight, x, self.draw(out), **attrs)

    def linear(self, x: int, out: int, columns: int | None = None, **attrs: Any) -> int:
        weight = self.draw(out, columns or self.shape(x)[-1])
        return self.op("FULLY_CONNECTED", x, weight, self.draw(out), **attrs)

    def prelu(self, x: int, low: float, high: float) -> int:
        alpha = np.linspace(low, high, self.shape(x)[3], dtype=np.float32).reshape(1, 1, -1)
        return self.op("PRELU", x, self.add("alpha", alpha.shape, alpha))

    def shuffled(self, x: int, groups: int) -> int:
        _, h, w, c = self.shape(x)
        x = self.op("RESHAPE", x, self.ints(1, h * w, groups, c // groups))
        x = self.op("TRANSPOSE", x, self.ints(0, 1, 3, 2))
        return self.op("RESHAPE", x, self.ints(1, h, w, c))

    def logits(self, x: int) -> Graph:
        if len(self.shape(x)) == 4:
            x = self.op("MEAN", x, self.ints(1, 2))
        x = self.linear(x, CLASSES)
        graph = Graph(self.tensors, tuple(self.nodes), (self.image,), (x,))
        graph.check()
        return graph


RELU = {"fused_activation_function": "RELU"}
TWO = {"stride_h": 2, "stride_w": 2}
VALID = {"padding": "VALID"}


def dilated(by: int) -> dict[str, int]:
    return {"dilation_h_factor": by, "dilation_w_factor": by}


# what stands between a map of CHANNELS channels and the logits
LAYERS: dict[str, Callable[[Maker, int], int]] = {
    "dense": lambda m, x: m.conv(x, 6, 3, **RELU),
    "dense_stride_2": lambda m, x: m.conv(x, 6, 3, **TWO, **RELU),
    "dense_even_kernel": lambda m, x: m.conv(x, 6, 2, **VALID),
    "pointwise": lambda m, x: m.conv(x, 6),
    "grouped": lambda m, x: m.conv(m.conv(x, 12, 3, groups=4, **RELU), 6, 1, groups=2),
    "grouped_even_stride_2": lambda m, x: m.conv(x, 4, 4, groups=2, **TWO),
    "shuffled": lambda m, x: m.conv(m.shuffled(m.conv(x, 8, groups=2), 2), 8, groups=4, **RELU),
    "depthwise": lambda m, x: m.conv(m.depthwise(x, **RELU), 6),
    "depthwise_even_stride_2": lambda m, x: m.conv(m.depthwise(x, 4, **TWO, **VALID), 6),
    "depth_multiplier": lambda m, x: m.conv(m.depthwise(x, m=2, **RELU), 6),
    "depth_multiplier_of_a_grouped": lambda m, x: m.depthwise(m.conv(x, 6, 3, groups=2), m=3, **TWO),
    "dilated": lambda m, x: m.conv(m.conv(x, 6, 3, **dilated(2), **RELU), 6, 2, **dilated(3), **VALID),
    "dilated_grouped": lambda m, x: m.conv(x, 6, 3, groups=2, **dilated(2)),
    "depthwise_dilated": lambda m, x: m.conv(m.depthwise(m.depthwise(x, **dilated(2), **RELU), **dilated(3)), 6),
    "transposed": lambda m, x: m.conv(m.transposed(x, 6, 2, 2, 16, **VALID, **RELU), 6, 3, **TWO),
    "transposed_same": lambda m, x: m.transposed(m.transposed(x, 6, 4, 2, 16), 4, 3, 2, 33, **VALID),
    "prelu": lambda m, x: m.conv(m.prelu(m.conv(x, 6), 0.1, 1.0), 6, 3),
    "prelu_steep": lambda m, x: m.conv(m.prelu(m.conv(x, 6, groups=2), -0.5, 1.5), 6, 3),
    "linear": lambda m, x: m.linear(m.op("MEAN", x, m.ints(1, 2)), 6, **RELU),
    "linear_of_tokens": lambda m, x: m.linear(m.linear(x, 12, keep_num_dims=True, **RELU), 6, keep_num_dims=True),
    "linear_of_a_flat_map": lambda m, x: m.linear(m.conv(x, 2), 7, 128),
}


def graph_of(name: str) -> Graph:
    """The graph of one kind, with loud channels in front of the layer so that folds pay."""
    maker = Maker(sum(map(ord, name)))
    x = maker.conv(maker.image, CHANNELS, 3, loud=True, **RELU)
    return maker.logits(LAYERS[name](maker, x))
