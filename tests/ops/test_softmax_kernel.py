"""The softmax kernel that reads int8, code by code: int8 out, and int16 out with a QUANTIZE behind it."""

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.lowering.profiles import widened
from qhyvit.ops import spec
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.fakequant import ExactQuant
from qhyvit.sim.run import Executor
from qhyvit.tflite.write import quantize
from qhyvit.verify.probe import make_interpreter, run

ROWS = 64


def softmax(positions):
    tensors = {i: Tensor(i, name, (ROWS, positions), "FLOAT32") for i, name in enumerate("xy")}
    return Graph(tensors, (Node("SOFTMAX", spec("SOFTMAX").attrs(), (0,), (1,)),), (0,), (1,))


@pytest.mark.parametrize("positions", [7, 256, 3136])
@pytest.mark.parametrize("wide", [False, True])
def test_every_code_is_the_kernels(positions, wide):
    rng = np.random.default_rng(positions)
    graph = widened(softmax(positions), ["y"]) if wide else softmax(positions)
    for _ in range(10):
        s_in = float(np.float32(10 ** rng.uniform(-3, 0.5)))
        codes = np.clip(rng.normal(0, rng.uniform(1, 60), (ROWS, positions)), -128, 127).astype(np.int8)
        x = torch.from_numpy(codes.astype(np.float64) * s_in)[None]
        (y,) = Executor(graph, torch.float64).apply(graph.nodes[0], [x])
        s_out = float(np.float32(float(y.max()) / 255)) if wide else 1 / 256
        quants = {"x": TensorQuant((s_in,), (0,)), "y": TensorQuant((s_out,), (-128,))}
        file = quantize(graph, QuantPlan(quants, "test", wide=("y",) if wide else ()))
        found = run(make_interpreter(file, "litert"), codes)
        mine = ExactQuant(graph, quants).codes(graph.tensors[1], y[0], graph.nodes[0])
        assert np.array_equal(mine, found.reshape(mine.shape).astype(np.int64))


# input scale, input codes, what the kernel gave on an emulated Cortex-A72, what it gives on x86-64
ARM64 = [
    (0.14954645931720734,
     [-74, -61, -65, -62, -80, -101, -62, -57, -69, -77, -63, -58, -67, -62, -67, -63],
     [-124, -103, -114, -107, -127, -128, -107, -83, -121, -126, -110, -89, -118, -107, -118, -110],
     [-124, -103, -114, -107, -127, -128, -107, -83, -121, -126, -110, -90, -118, -107, -118, -110]),
    (0.04217032715678215,
     [-16, -24, -19, -5, -27, -13, -28, -26, -23, -26, -19, -27, -28, 32, -46, -15],
     [-115, -119, -116, -107, -120, -113, -120, -119, -118, -119, -116, -120, -120, -29, -124, -114],
     [-115, -119, -117, -107, -120, -113, -120, -119, -118, -119, -117, -120, -120, -29, -124, -114]),
    (0.06572730839252472,
     [-109, -112, -118, -128, -112, -107, -91, -51, -109, -128, -119, -43, -108, -119, -119, -90],
     [-126, -126, -127, -127, -126, -126, -122, -43, -126, -127, -127, 15, -126, -127, -127, -121],
     [-126, -126, -127, -127, -126, -126, -122, -44, -126, -127, -127, 15, -126, -127, -127, -121]),
]  # fmt: skip


@pytest.mark.parametrize(("s_in", "codes", "on_arm64", "on_x86"), ARM64)
def test_arm64_has_a_kernel_of_its_own(s_in, codes, on_arm64, on_x86):
    tensors = {i: Tensor(i, name, (1, 16), "FLOAT32") for i, name in enumerate("xy")}
    node = Node("SOFTMAX", spec("SOFTMAX").attrs(), (0,), (1,))
    graph = Graph(tensors, (node,), (0,), (1,))
    quants = {"x": TensorQuant((s_in,), (0,)), "y": TensorQuant((1 / 256,), (-128,))}
    x = torch.tensor(codes, dtype=torch.float64)[None, None] * s_in
    (y,) = Executor(graph, torch.float64).apply(node, [x])
    for expected, arm64 in ((on_arm64, True), (on_x86, False)):
        mine = ExactQuant(graph, quants, arm64=arm64).codes(graph.tensors[1], y[0], node)
        assert mine.ravel().tolist() == expected
