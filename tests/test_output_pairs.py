"""Two pixels at once, against torch's own convolution."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qhyvit.passes import output_pairs, pixel_pairs
from tests.test_pixel_pairs import convolved, result, stem

random = np.random.default_rng(1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(4, 9), st.integers(4, 14), st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(1, 10),
    st.integers(1, 2), st.integers(1, 3),
)  # fmt: skip
def test_the_values_are_those_of_the_convolution(height, width, rows, taps, channels, outputs, down, across):
    assume(height >= rows and width >= taps)
    graph = stem((height, width), (rows, taps), channels, stride=(down, across), outputs=outputs)
    x = torch.from_numpy(random.normal(size=(2, height, width, channels)))
    found, columns = output_pairs.apply(graph), (width - taps) // across + 1
    found.check()
    assert ([n.op for n in found.nodes] == ["CONV_2D", "RESHAPE"]) == (
        outputs <= 8 and columns % 2 == 0 and across < taps
    )
    assert torch.allclose(result(found, x), convolved(graph, x), atol=1e-9)


def test_a_stem_reads_pairs_and_writes_pairs():
    """Of 3x3 taps 3x2 pairs are left, and 3x3 for two outputs: 9 steps of sixteen in the place of 12."""
    graph = stem((8, 8), (3, 3), 3, pads=((1, 1), (1, 1)), outputs=8)
    found = output_pairs.apply(pixel_pairs.apply(graph))
    assert [n.op for n in found.nodes] == ["RESHAPE", "PAD", "CONV_2D", "RESHAPE"]
    conv = found.nodes[2]
    assert found.tensors[conv.inputs[1]].shape == (16, 3, 3, 6)
    assert (conv.attrs.stride_h, conv.attrs.stride_w) == (2, 2)
    assert found.tensors[conv.outputs[0]].shape == (1, 4, 2, 16)
    x = torch.from_numpy(random.normal(size=(2, 8, 8, 3)))
    assert torch.allclose(result(found, x), convolved(graph, x), atol=1e-9)


@pytest.mark.parametrize(
    "graph",
    [
        stem((8, 8), (3, 3), 3, padding="SAME"), stem((10, 10), (3, 3), 3, outputs=9, stride=(1, 1)),
        stem((8, 8), (1, 1), 3, stride=(1, 1)), stem((8, 7), (3, 3), 3),
    ],
)  # fmt: skip
def test_kernels_that_are_full_windows_that_do_not_meet_and_odd_widths_stay(graph):
    assert output_pairs.apply(graph).nodes == graph.nodes
