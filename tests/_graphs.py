"""Small float graphs made of random pieces, for properties that have to hold whatever is connected with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.sim.run import Executor

SIDE, CHANNELS = 4, 6


@dataclass
class Builder:
    """Adds tensors and nodes one by one; ``input`` is [1, 4, 4, 3]."""

    rng: np.random.Generator
    tensors: list[Tensor] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.input = self.tensor("input", (1, SIDE, SIDE, 3))

    def tensor(self, name: str, shape: tuple[int, ...], dtype: str = "FLOAT32", data: Any = None) -> int:
        self.tensors.append(Tensor(len(self.tensors), f"{name}.{len(self.tensors)}", shape, dtype, data))
        return len(self.tensors) - 1

    def constant(self, *shape: int, low: float | None = None) -> int:
        """Normal values, or from ``low`` up."""
        data = self.rng.normal(size=shape)
        data = data if low is None else low + np.abs(data)
        return self.tensor("constant", shape, data=data.astype(np.float32))

    def integers(self, *values: int) -> int:
        data = np.array(values, np.int32)
        return self.tensor("integers", data.shape, "INT32", data)

    def number(self, value: float) -> int:
        return self.tensor("number", (), data=np.array(value, np.float32))

    def shape(self, t: int) -> tuple[int, ...]:
        return self.tensors[t].shape

    def add(self, op: str, *inputs: int, **attrs: Any) -> int:
        """One node; its output's shape comes from the op."""
        made = spec(op).attrs(**attrs)
        constants = [self.tensors[t].data if t >= 0 and self.tensors[t].dtype == "INT32" else None for t in inputs]
        shape = spec(op).infer_shape([self.shape(t) if t >= 0 else () for t in inputs], made, constants)
        out = self.tensor(op.lower(), tuple(int(n) for n in shape))
        self.nodes.append(Node(op, made, inputs, (out,)))
        return out

    def conv(self, x: int, outputs: int = CHANNELS, kernel: int = 1, **attrs: Any) -> int:
        weight = self.constant(outputs, kernel, kernel, self.shape(x)[-1])
        return self.add("CONV_2D", x, weight, self.constant(outputs), **attrs)

    def linear(self, x: int, outputs: int, **attrs: Any) -> int:
        weight = self.constant(outputs, self.shape(x)[-1])
        return self.add("FULLY_CONNECTED", x, weight, self.constant(outputs), keep_num_dims=True, **attrs)

    def reshape(self, x: int, *shape: int) -> int:
        return self.add("RESHAPE", x, self.integers(*shape), new_shape=shape)

    def tokens(self, x: int) -> int:
        """[.., C] as [1, N, C]."""
        return self.reshape(x, 1, int(np.prod(self.shape(x)[:-1])), self.shape(x)[-1])

    def as_wide_as(self, x: int) -> int:
        """Another activation of the shape of ``x``, with channels of its own."""
        shape = self.shape(x)
        made = self.conv(self.input, shape[-1])
        if len(shape) == 4 and shape[1:3] == (SIDE, SIDE):
            return made
        whole = self.shape(self.tokens(made))
        if len(shape) == 3 and shape == whole:
            return self.tokens(made)
        mean = self.add("MEAN", made, self.integers(1, 2), keep_dims=True)
        return self.add("ADD", self.reshape(mean, *(1,) * (len(shape) - 1), shape[-1]), self.constant(*shape))

    def graph(self, output: int) -> Graph:
        found = Graph({t.id: t for t in self.tensors}, tuple(self.nodes), (self.input,), (output,))
        found.check()
        return found


Piece = Callable[[Builder, int], int]


def _operand(shape_of: Callable[[tuple[int, ...]], tuple[int, ...]], op: str, *, left: bool = False) -> Piece:
    """An elementwise op with a constant of a shape made from the tensor's own."""

    def piece(b: Builder, x: int) -> int:
        c = b.constant(*shape_of(b.shape(x)), low=0.5 if op == "DIV" else None)
        return b.add(op, *((c, x) if left else (x, c)))

    return piece


SHAPES: dict[str, Callable[[tuple[int, ...]], tuple[int, ...]]] = {
    "whole": lambda s: s,
    "row": lambda s: (1,) * (len(s) - 1) + s[-1:],
    "vector": lambda s: s[-1:],
    "column": lambda s: (*s[:-1], 1),
    "one": lambda s: (1,),
    "scalar": lambda s: (),
}


def _attention(b: Builder, x: int) -> int:
    """q k^T v of one tensor's tokens, without a softmax: scales may pass everywhere."""
    t = b.tokens(x)
    q, k, v = (b.linear(t, 4) for _ in range(3))
    return b.add("BATCH_MATMUL", b.add("BATCH_MATMUL", q, k, adj_y=True), v)


def _softmax_attention(b: Builder, x: int) -> int:
    t = b.tokens(x)
    q, k, v = (b.linear(t, 4) for _ in range(3))
    return b.add("BATCH_MATMUL", b.add("SOFTMAX", b.add("BATCH_MATMUL", q, k, adj_y=True)), v)


def _same_twice(op: str) -> Piece:
    return lambda b, x: b.add(op, x, x)


def _mean(b: Builder, x: int, *, keep: bool = True) -> int:
    """Over the channels; [.., 1] in the end, whether the op keeps the axis or a RESHAPE brings it back."""
    mean = b.add("MEAN", x, b.integers(len(b.shape(x)) - 1), keep_dims=keep)
    return mean if keep else b.reshape(mean, *b.shape(x)[:-1], 1)


def _root(b: Builder, x: int, variance: int) -> int:
    return b.add("RSQRT", b.add("ADD", variance, b.constant(1, low=0.1)))


def _norm(b: Builder, x: int) -> int:
    """LayerNorm: the difference from the mean times 1 / r."""
    centre = b.add("SUB", x, _mean(b, x))
    return b.add("MUL", centre, _root(b, x, _mean(b, b.add("MUL", centre, centre))))


def _norm_of_products(b: Builder, x: int) -> int:
    """The same as x / r + (0 - mean / r), as litert-torch writes it."""
    mean = _mean(b, x, keep=False)
    root = _root(b, x, _mean(b, b.add("SQUARED_DIFFERENCE", x, mean), keep=False))
    zero = b.tensor("zero", (), data=np.zeros((), np.float32))
    return b.add("ADD", b.add("MUL", x, root), b.add("SUB", zero, b.add("MUL", root, mean)))


def _norm_of_moments(b: Builder, x: int) -> int:
    """The same with the variance as the mean of squares less the square of the mean, and x / r - mean / r."""
    mean = _mean(b, x)
    variance = b.add("SUB", _mean(b, b.add("MUL", x, x)), b.add("MUL", mean, mean))
    root = _root(b, x, variance)
    return b.add("SUB", b.add("MUL", root, x), b.add("MUL", mean, root))


def _affine(norm: Piece) -> Piece:
    """A norm with gamma and beta."""

    def piece(b: Builder, x: int) -> int:
        y = b.add("MUL", norm(b, x), b.constant(b.shape(x)[-1]))
        return b.add("ADD", y, b.constant(b.shape(x)[-1]))

    return piece


def _parts(b: Builder, x: int) -> int:
    """SPLIT into two halves, one of them through a layer, and put together again."""
    shape, axis = b.shape(x), len(b.shape(x)) - 1
    if shape[-1] % 2:
        return x
    outs = tuple(b.tensor("part", (*shape[:-1], shape[-1] // 2)) for _ in range(2))
    made = spec("SPLIT").attrs(num_splits=2)
    b.nodes.append(Node("SPLIT", made, (b.tensor("axis", (), "INT32", np.array(axis, np.int32)), x), outs))
    return b.add("CONCATENATION", b.linear(outs[0], 4), outs[1], axis=axis)


def _cut(b: Builder, x: int, begin: int, size: int) -> int:
    shape = b.shape(x)
    return b.add("SLICE", x, b.integers(*(0,) * (len(shape) - 1), begin), b.integers(*shape[:-1], size))


def _slices(b: Builder, x: int) -> int:
    """Two parts that overlap, added."""
    size = max(b.shape(x)[-1] - 1, 1)
    return b.add("ADD", _cut(b, x, 0, size), _cut(b, x, b.shape(x)[-1] - size, size))


def _res2net(b: Builder, x: int) -> int:
    """A part of the channels through a depthwise convolution, the rest beside it, and a residual around all."""
    if len(b.shape(x)) != 4 or b.shape(x)[-1] < 2:
        return x
    half = b.shape(x)[-1] // 2
    first, rest = _cut(b, x, 0, half), _cut(b, x, half, b.shape(x)[-1] - half)
    both = b.add("CONCATENATION", _depthwise(b, first), rest, axis=3)
    return b.add("ADD", x, b.linear(both, b.shape(x)[-1]))


def _on_map(piece: Piece) -> Piece:
    """A piece for maps [1, H, W, C]; tokens pass unchanged."""
    return lambda b, x: piece(b, x) if len(b.shape(x)) == 4 else x


def _depthwise(b: Builder, x: int) -> int:
    c = b.shape(x)[-1]
    return b.add("DEPTHWISE_CONV_2D", x, b.constant(1, 3, 3, c), b.constant(c))


SUMS = ("ADD", "SUB", "MUL")
PIECES: dict[str, Piece] = {
    **{f"{op} {name}": _operand(shape, op) for op in SUMS for name, shape in SHAPES.items()},
    **{f"{name} {op}": _operand(SHAPES[name], op, left=True) for op in SUMS for name in ("whole", "row")},
    **{f"{op} another": lambda b, x, op=op: b.add(op, x, b.as_wide_as(x)) for op in SUMS},
    **{f"another {op}": lambda b, x, op=op: b.add(op, b.as_wide_as(x), x) for op in SUMS},
    **{f"{op} {name}": _operand(SHAPES[name], op) for op in ("MAXIMUM", "MINIMUM") for name in ("row", "scalar")},
    "largest of two": lambda b, x: b.add("MAXIMUM", x, b.as_wide_as(x)),
    **{f"{op} itself": _same_twice(op) for op in ("ADD", "MUL")},
    "residual": lambda b, x: b.add("ADD", x, b.linear(x, b.shape(x)[-1])),
    "two readers": lambda b, x: b.add("ADD", b.linear(x, 5), b.linear(x, 5)),
    "gate": lambda b, x: b.add("MUL", x, b.add("LOGISTIC", b.as_wide_as(x))),
    "silu": lambda b, x: b.add("MUL", x, b.add("LOGISTIC", x)),
    "silu of layer": lambda b, x: (lambda y: b.add("MUL", y, b.add("LOGISTIC", y)))(b.linear(x, 5)),
    "relu": lambda b, x: b.add("RELU", x),
    "abs": lambda b, x: b.add("ABS", x),
    "leaky relu": lambda b, x: b.add("LEAKY_RELU", x, alpha=0.25),
    "fused relu": lambda b, x: b.linear(x, 5, fused_activation_function="RELU"),
    "fused relu6": lambda b, x: b.linear(x, 5, fused_activation_function="RELU6"),
    "add relu": lambda b, x: b.add("ADD", x, b.constant(b.shape(x)[-1]), fused_activation_function="RELU"),
    "linear": lambda b, x: b.linear(x, 7),
    "tokens": lambda b, x: b.tokens(x),
    "turn": lambda b, x: b.add("TRANSPOSE", b.tokens(x), b.integers(0, 2, 1)),
    "reversed": lambda b, x: b.add("REVERSE_V2", x, b.integers(len(b.shape(x)) - 1)),
    "one more axis": lambda b, x: b.add("SQUEEZE", b.add("EXPAND_DIMS", x, b.integers(0)), squeeze_dims=(0,)),
    "gathered": lambda b, x: b.add("GATHER", x, b.integers(0, 2, 2), axis=len(b.shape(x)) - 1),
    "every second": lambda b, x: b.add("STRIDED_SLICE", x, *(b.integers(*v) for v in (
        (0,) * len(b.shape(x)), b.shape(x), (*(1,) * (len(b.shape(x)) - 1), 2)))),
    "spread": lambda b, x: b.add(
        "BROADCAST_TO", b.add("MEAN", x, b.integers(0), keep_dims=True), b.integers(*b.shape(x))),
    "mirrored": _on_map(lambda b, x: b.add("MIRROR_PAD", x, b.tensor("pads", (4, 2), "INT32", np.array(
        [[0, 0], [1, 0], [0, 1], [0, 0]], np.int32)), mode="REFLECT")),
    "nearest": _on_map(lambda b, x: b.add("RESIZE_NEAREST_NEIGHBOR", x, b.integers(8, 8))),
    "pad": _on_map(lambda b, x: b.add("PAD", x, b.tensor("pads", (4, 2), "INT32", np.array(
        [[0, 0], [1, 0], [0, 1], [0, 0]], np.int32)))),
    "conv": _on_map(lambda b, x: b.conv(x, 5, 3)),
    "depthwise": _on_map(_depthwise),
    "mean": lambda b, x: b.add("MEAN", b.tokens(x), b.integers(1), keep_dims=True),
    "product": lambda b, x: b.add("BATCH_MATMUL", b.tokens(x), b.constant(b.shape(x)[-1], 5)),
    "product rows": lambda b, x: b.add("BATCH_MATMUL", b.tokens(x), b.constant(5, b.shape(x)[-1]), adj_y=True),
    "product left": lambda b, x: b.add("BATCH_MATMUL", b.constant(3, b.shape(b.tokens(x))[1]), b.tokens(x)),
    "gram": lambda b, x: (lambda t: b.add("BATCH_MATMUL", t, t, adj_y=True))(b.tokens(x)),
    "attention": _attention,
    "softmax attention": _softmax_attention,
    "parts": _parts,
    "slices": _slices,
    "res2net": _res2net,
    "concatenation": lambda b, x: b.add("CONCATENATION", x, b.linear(x, 3), axis=len(b.shape(x)) - 1),
    "residual norm": lambda b, x: b.add("ADD", x, b.linear(_norm(b, x), b.shape(x)[-1])),
    "norm": _norm,
    "norm of products": _norm_of_products,
    "norm of moments": _norm_of_moments,
    "affine norm": _affine(_norm),
    "affine norm of products": _affine(_norm_of_products),
}  # fmt: skip


def random_graph(names: list[str], seed: int) -> Graph:
    """A convolution, then the pieces ``names`` one behind another, then a linear; weights by ``seed``."""
    b = Builder(np.random.default_rng(seed))
    x = b.conv(b.input, CHANNELS, 3)
    for name in names:
        x = PIECES[name](b, x)
    return b.graph(b.linear(x, 4))


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


def outputs(graph: Graph, seed: int = 3) -> torch.Tensor:
    """What it gives for two images, in float64."""
    image = torch.randn(2, 4, 4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Executor(graph, torch.float64).run(image)[graph.outputs[0]]
