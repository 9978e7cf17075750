"""Islands of int16: placed where int8 loses much, written, and proven op by op."""


import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph
from qhyvit.measure import MEASURES
from qhyvit.methods import method
from qhyvit.methods._problem import Problem, Solution
from qhyvit.plan import QuantPlan
from qhyvit.tflite.write import quantize
from qhyvit_device.runner import TfliteFile
from tests._graphs import Builder

WIDTH, BLOCKS = 16, 3
FAST = {"rounds": 3, "learn": 0}


def _norm(b: Builder, x: int) -> int:
    channels = len(b.shape(x)) - 1
    mean = b.add("MEAN", x, b.integers(channels), keep_dims=True)
    centre = b.add("SUB", x, mean)
    variance = b.add("MEAN", b.add("MUL", centre, centre), b.integers(channels), keep_dims=True)
    eps = b.tensor("eps", (1, 1, 1), data=np.full((1, 1, 1), 1e-5, np.float32))
    return b.add("MUL", centre, b.add("RSQRT", b.add("ADD", variance, eps)))


def stream(*, spread: float) -> Graph:
    """Tokens with a residual stream and norms; the variances of the tokens differ ``spread``-fold squared."""
    b = Builder(np.random.default_rng(0))
    x = b.tokens(b.conv(b.input, WIDTH))
    size = np.geomspace(1.0, spread, b.shape(x)[1]).reshape(1, -1, 1).astype(np.float32)
    massive = np.ones((1, 1, WIDTH), np.float32)
    massive[..., 0] = spread
    x = b.add("MUL", x, b.tensor("size", size.shape, data=size))
    x = b.add("MUL", x, b.tensor("massive", massive.shape, data=massive))
    for _ in range(BLOCKS):
        inner = b.add("RELU", b.linear(_norm(b, x), 2 * WIDTH))
        x = b.add("ADD", x, b.linear(inner, WIDTH))
    pooled = b.add("MEAN", _norm(b, x), b.integers(1))
    return b.graph(b.linear(pooled, 10))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(24, 4, 4, 3, generator=torch.Generator().manual_seed(1))


def search(graph: Graph, images: torch.Tensor, **options: object) -> Solution:
    chosen = method("qhyvit")
    problem = Problem(graph, images, measure=MEASURES["correlation"])
    return chosen.search(problem, {**chosen.defaults, **FAST, **options})


def plan_of(found: Solution) -> QuantPlan:
    names = tuple(t.name for t in found.graph.activations() if t.id in found.graph.floats)
    return QuantPlan(found.tensors, "qhyvit", floats=names, int16=found.int16)


def input_codes(found: Solution, images: torch.Tensor) -> list[np.ndarray]:
    quant = found.tensors[found.graph.tensors[found.graph.inputs[0]].name]
    codes = np.rint(images.numpy() / quant.scale[0]) + quant.zero_point[0]
    return list(np.clip(codes, -128, 127).astype(np.int8)[:, None])


def deployed(found: Solution, images: torch.Tensor) -> np.ndarray:
    """Outputs of the written file, [N, outputs]."""
    file = TfliteFile(quantize(found.shipped, plan_of(found)))
    scale, zero = file.output["quantization"]
    return np.stack([(file.run(c[0]).astype(np.float64).ravel() - zero) * scale for c in input_codes(found, images)])


@pytest.fixture(scope="module")
def hard() -> Graph:
    return stream(spread=30.0)


@pytest.fixture(scope="module")
def found(hard, images) -> Solution:
    return search(hard, images)
