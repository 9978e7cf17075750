"""Outputs far finer than what their kernel adds up or multiplies get the finest scale that XNNPACK takes."""

import numpy as np
import pytest

from qhyvit.graph.ir import INT8, Graph, Node, Quantization, Tensor
from qhyvit.methods.shared.ranges import finish
from qhyvit.ops import spec
from qhyvit.plan import TensorQuant
from qhyvit.tflite.serialize import serialize
from qhyvit_device.interpreter import TfliteFile
from tests._graphs import Builder

FIRST, SECOND, WEIGHT = 0.5, 0.375, 0.25
LIMITS = {  # scales of what is read, over the most that the kernel multiplies by
    "MUL": FIRST * SECOND / 2**7, "BATCH_MATMUL": FIRST * SECOND / 2**7, "CONV_2D": FIRST * WEIGHT / 2**7,
    "ADD": FIRST / 255, "SUB": FIRST / 255,
}  # fmt: skip


def one_op(op):
    """A graph with two activations that one op reads, and the names of both, of the op's weight and of its output."""
    b = Builder(np.random.default_rng(0))
    x, y = b.conv(b.input, 4), b.conv(b.input, 4)
    out = b.conv(x, 4) if op == "CONV_2D" else b.add(op, x, y)
    graph = b.graph(b.linear(out, 2))
    weight = next(node.inputs[1] for node in graph.nodes if node.outputs[0] == out)
    return graph, [graph.tensors[t].name for t in (x, y, weight, out)]


def finished(op, scale):
    """The scale that an output has in the file, of one that was found."""
    graph, (x, y, weight, out) = one_op(op)
    found = {x: TensorQuant((FIRST,), (0,)), y: TensorQuant((SECOND,), (0,)), out: TensorQuant((scale,), (0,))}
    if op == "CONV_2D":
        found[weight] = TensorQuant((WEIGHT / 4, WEIGHT, WEIGHT / 2, WEIGHT / 4), (0,) * 4, axis=0)
    return finish(graph, found)[out].scale


@pytest.mark.parametrize("op", LIMITS)
def test_a_finer_output_gets_the_finest_scale_that_its_kernel_can_give(op):
    limit = float(np.float32(LIMITS[op]))
    assert finished(op, limit / 1000) == (limit,)
    assert finished(op, limit * 0.999) == (limit,)
    assert finished(op, limit * 1.001) == (float(np.float32(limit * 1.001)),)


def test_the_scale_of_an_operand_that_is_not_known_sets_no_limit():
    graph, (x, _, _, out) = one_op("MUL")
    found = finish(graph, {x: TensorQuant((FIRST,), (0,)), out: TensorQuant((2.0**-20,), (0,))})
    assert found[out].scale == (2.0**-20,)


@pytest.mark.parametrize(("op", "gain"), [("MUL", 2.0**7), ("ADD", 255.0)])
def test_xnnpack_takes_an_op_at_the_limit_and_none_from_256_on(op, gain):
    assert taken(op, gain)
    assert not taken(op, 2.0**8)


def taken(op, gain):
    """Whether XNNPACK computes an op whose sums are multiplied by ``gain``."""
    scale = FIRST * FIRST / gain if op == "MUL" else FIRST / gain
    x, y = (Tensor(i, "xy"[i], (1, 2, 2, 3), INT8, None, Quantization((float(np.float32(s)),), -128))
            for i, s in enumerate((FIRST, scale)))  # fmt: skip
    file = TfliteFile(serialize(Graph({0: x, 1: y}, (Node(op, spec(op).attrs(), (0, 0), (1,)),), (0,), (1,))))
    return file.delegate_partitions > 0
