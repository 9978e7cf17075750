"""The weight of an op as matrices: times what each output position reads they are the op itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _cases import CASES
from _single_op import Case, build

from qhyvit.ops import all_ops
from qhyvit.ops.shared.layer import layer_of
from qhyvit.tflite.read import read

WEIGHTED = pytest.mark.parametrize("case", [c for c in CASES if c.spec.weight_input >= 0], ids=str)


def layer(case: Case):
    graph = read(build(case))
    found = layer_of(graph, graph.nodes[0])
    assert found is not None
    return graph, found


def test_ops_with_weights_have_a_view_and_others_have_none() -> None:
    for op in all_ops().values():
        assert (op.layer is not None) == (op.weight_input >= 0) == (op.bias_input >= 0), op.name


@WEIGHTED
def test_rows_go_back_to_the_weight(case: Case) -> None:
    graph, found = layer(case)
    weight = graph.constant(found.weight).astype(np.float64)
    rows = found.rows(weight)
    outputs = weight.shape[found.axis]
    assert rows.shape[0] * rows.shape[1] == outputs
    assert np.array_equal(found.weight_of(rows.clone()), weight)
    assert found.per_channel(torch.arange(outputs)).flatten().tolist() == list(range(outputs))


@WEIGHTED
def test_patches_times_rows_is_the_op_itself(case: Case) -> None:
    graph, found = layer(case)
    x = torch.from_numpy(case.images(2)[case.spec.data_input]).double()
    weight = torch.tensor(graph.constant(found.weight), dtype=torch.float64)
    operands = [None] * len(case.operands)
    for position, given in enumerate(case.operands):
        operands[position] = given  # integer constants as they are
    operands[case.spec.data_input], operands[case.spec.weight_input] = x, weight
    if len(operands) > case.spec.bias_input:
        operands[case.spec.bias_input] = None
    expected = case.spec.forward(operands, case.attrs)
    product = found.patches(x) @ found.rows(graph.constant(found.weight)).transpose(1, 2)
    assert torch.allclose(product, found.outputs(expected), atol=1e-12)
    assert product.shape[0] == found.groups


@WEIGHTED
def test_a_scale_of_the_datas_channels_reaches_the_weights_that_read_them(case: Case) -> None:
    """x / r and a weight times r compute the same, in every op where each weight reads one channel."""
    graph, found = layer(case)
    r = np.exp(np.random.default_rng(0).normal(size=found.data_shape[-1]))
    factor = found.along_data(r)
    if factor is None:  # two positions of the data in one row, or half of its channels
        assert case.op == "FULLY_CONNECTED"
        assert found.weight_shape[1] % found.data_shape[-1]
        return
    x = torch.from_numpy(case.images(2)[case.spec.data_input]).double()
    weight = graph.constant(found.weight).astype(np.float64)
    plain = found.patches(x) @ found.rows(weight).transpose(1, 2)
    scaled = found.patches(x / torch.from_numpy(r)) @ found.rows(weight * factor).transpose(1, 2)
    assert torch.allclose(scaled, plain, rtol=1e-10)
