"""Weights of four bits: packed in the file, read back, and computed with as XNNPACK computes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import INT4, Graph
from qhyvit.lowering.int4 import as_linear, is_pointwise, may_take_int4, takes_int4
from qhyvit.lowering.lower import lower
from qhyvit.methods.shared.ranges import weight_quant, weight_scales
from qhyvit.ops.shared.spec import Kernel
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.integer import IntegerExecutor
from qhyvit.sim.run import Executor
from qhyvit.tflite import flatbuffer
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.census import census
from qhyvit.verify.probe import make_interpreter, run
from qhyvit.verify.report import first_difference
from tests._int4 import int4_layers
from tests._layer_graphs import Maker


def layers_graph(inner: int, rows: int = 8) -> Graph:
    """image -> 3x3 convolution -> 1x1 convolution of ``inner`` inputs -> linear over the tokens."""
    make = Maker()
    x = make.conv(make.image, inner, 3)
    x = make.conv(x, 2 * rows, fused_activation_function="RELU")
    weight = make.draw(10, 2 * rows)
    x = make.op("FULLY_CONNECTED", x, weight, make.draw(10), keep_num_dims=True)
    return Graph(make.tensors, tuple(make.nodes), (make.image,), (x,))


def linears(graph: Graph) -> Graph:
    for node in graph.nodes:
        if is_pointwise(graph, node):
            graph = as_linear(graph, node)
    return graph


def planned(graph: Graph, bits: int) -> QuantPlan:
    """Min-max on noise; weights of four bits where a kernel takes them."""
    noise = torch.randn(4, *graph.tensors[graph.inputs[0]].shape[1:], generator=torch.Generator().manual_seed(1))
    values = Executor(graph).run(noise, None, [t.id for t in graph.activations()])
    quants = {}
    for t in graph.activations():
        low, high = min(float(values[t.id].min()), 0.0), max(float(values[t.id].max()), 0.0)
        scale = (high - low) / 255
        quants[t.name] = TensorQuant((scale,), (int(np.clip(np.rint(-128 - low / scale), -128, 127)),))
    for node in graph.nodes:
        weight = graph.tensors[node.inputs[1]]
        own = bits if may_take_int4(graph, node) else 8
        quants[weight.name] = weight_quant(weight_scales(graph.constant(weight.id), 0, bits=own), 0, "minmax", own)
    return QuantPlan(quants, "minmax")


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_packed_codes_come_back(count):
    codes = np.random.default_rng(count).integers(-8, 8, count).astype(np.int8)
    packed = flatbuffer.packed(codes)
    assert packed.nbytes == (count + 1) // 2
    assert np.array_equal(flatbuffer.unpacked(packed, count), codes)
    assert packed[0] & 15 == codes[0] % 16  # the earlier one in the lower half


def test_every_code_of_int4_layers_is_the_kernels():
    parted, seen = [], set()
    for graph, codes in int4_layers():
        data = serialize(graph)
        assert census(data).not_delegated == {}
        interpreter = make_interpreter(data)
        found = np.stack([run(interpreter, x[None]) for x in codes])
        expected = IntegerExecutor(graph, Kernel.X86).run(codes)[graph.outputs[0]].reshape(len(codes), -1)
        parted.append(int((found != expected).sum()))
        seen |= set(found.ravel().tolist())
    assert parted == [0] * len(parted)
    assert len(seen) > 200


@pytest.mark.parametrize("inner", [6, 64, 130])
def test_the_interpreter_computes_what_the_simulation_computes(inner):
    graph = linears(layers_graph(inner))
    typed = lower(graph, planned(graph, 4)).graph
    four = [t for t in typed.tensors.values() if t.dtype == INT4]
    assert [t.shape for t in four] == [(16, inner), (10, 16)]
    assert all(np.abs(t.data).max() == 7 for t in four)  # kernels without dot products shift -8 to -128
    data = serialize(typed)
    assert first_difference(typed, read(data)) is None
    assert census(data).not_delegated == {}
    assert "newer than 2.14.0" in census(data).oldest_runtime
    executor = IntegerExecutor(typed, Kernel.X86)
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    codes = np.random.default_rng(0).integers(-128, 128, (20, *shape)).astype(np.int8)
    expected = executor.run(codes)[typed.outputs[0]].reshape(len(codes), -1)
    interpreter = make_interpreter(data)
    found = np.stack([run(interpreter, x[None]) for x in codes])
    assert len(np.unique(found)) > 50
    assert np.array_equal(found, expected)


def test_a_file_without_int4_weights_has_every_array_of_its_own():
    """Only files with weights of four bits share equal arrays: those of int8 weights stay as they were."""
    graph = linears(layers_graph(64, 64))
    sizes = {}
    for bits in (4, 8):
        typed = lower(graph, planned(graph, bits)).graph
        data = serialize(typed)
        assert first_difference(typed, read(data)) is None
        sizes[bits] = len(data)
    weights = 64 * 128 + 128 * 10
    zeros = 8 * (128 + 10)  # of the channels of weights; their biases have as many
    assert sizes[8] - sizes[4] >= weights / 2 + zeros


def test_odd_inputs_and_other_convolutions_stay_int8():
    make = Maker()
    x = make.conv(make.image, 7, 3)
    make.conv(x, 8)
    make.conv(make.conv(make.image, 8, 3), 8, stride_h=2, stride_w=2)
    graph = Graph(make.tensors, tuple(make.nodes), (make.image,), (make.nodes[1].outputs[0], make.nodes[3].outputs[0]))
    assert [may_take_int4(graph, n) for n in graph.nodes] == [False] * 4
    odd = as_linear(graph, graph.nodes[1])
    assert not takes_int4(odd, odd.nodes[1])


def test_a_pointwise_convolution_computes_the_same_as_a_linear():
    graph = layers_graph(12)
    changed = linears(graph)
    assert [n.op for n in changed.nodes] == ["CONV_2D", "FULLY_CONNECTED", "FULLY_CONNECTED"]
    assert {t.name for t in changed.tensors.values()} == {t.name for t in graph.tensors.values()}
    x = torch.randn(3, *graph.tensors[graph.inputs[0]].shape[1:], generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(Executor(changed).rows(x), Executor(graph).rows(x))


def test_an_int4_weight_that_two_nodes_read_is_packed_once():
    graph = linears(layers_graph(64))
    plan = planned(graph, 4)
    last = graph.nodes[-1]
    make = replace(last, outputs=(max(graph.tensors) + 1,))
    twin = replace(graph.tensors[last.outputs[0]], id=make.outputs[0], name="twin")
    both = replace(graph, tensors={**graph.tensors, twin.id: twin}, nodes=(*graph.nodes, make),
                   outputs=(*graph.outputs, twin.id))  # fmt: skip
    quants = {**plan.tensors, "twin": plan.tensors[graph.tensors[last.outputs[0]].name]}
    typed = lower(both, replace(plan, tensors=quants)).graph
    assert sum(t.dtype == INT4 for t in typed.tensors.values()) == 2
