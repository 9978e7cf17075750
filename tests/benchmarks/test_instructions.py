"""What products alone take on a processor, by its profile."""

import json
import math

import pytest

from benchmarks.instructions import per_inference, products_to_own_float
from qhyvit.latency.profile import packaged
from qhyvit.tflite.serialize import serialize
from tests._graphs import random_graph


@pytest.mark.parametrize("processor", ["cortex-a53", "cortex-a72", "cortex-a76"])
def test_products_alone_are_the_layers_multiply_accumulates(tmp_path, processor):
    """Of a convolution and a linear, each output adds up a row of weights; both kernels' costs are in the profile."""
    graph = random_graph([], 0)
    assert [n.op for n in graph.nodes] == ["CONV_2D", "FULLY_CONNECTED"]
    path = tmp_path / "m.tflite"
    path.write_bytes(serialize(graph))
    kernels, products, whole = json.loads(packaged()[processor].read_text())["kernels"], 0.0, 0.0
    for node in graph.nodes:
        read, weight, out = (graph.tensors[t].shape for t in (*node.inputs[:2], node.outputs[0]))
        macs, elements = math.prod(out) * math.prod(weight[1:]), max(math.prod(read), math.prod(out))
        products += kernels[f"{node.op} int8"]["ns_per_mac"] * macs
        floating = kernels[f"{node.op} float32"]
        whole += 1e3 * floating["fixed_us"] + floating["ns_per_element"] * elements + floating["ns_per_mac"] * macs
    assert products_to_own_float(path, path, processor) == pytest.approx(products / whole)


def test_an_inference_is_what_eight_more_take():
    assert per_inference("cpu 0: 7\ntotal insns: 1000\n", "total insns: 900\ntotal insns: 900\n") == 100
