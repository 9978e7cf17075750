"""Stems on pairs of pixels, against torch's own convolution."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.passes import pixel_pairs
from qhyvit.sim.run import Executor

random = np.random.default_rng(0)


def stem(size, kernel, channels, *, padding="VALID", stride=(2, 2), pads=None, weight_channels=None, outputs=5):
    """An image of ``size`` -> perhaps PAD -> CONV_2D."""
    shape, weight_shape = (1, *size, channels), (outputs, *kernel, weight_channels or channels)
    conv = spec("CONV_2D")
    attrs = conv.attrs(padding=padding, stride_h=stride[0], stride_w=stride[1], fused_activation_function="RELU")
    weight = random.normal(size=weight_shape).astype(np.float32)
    bias = random.normal(size=outputs).astype(np.float32)
    tensors = [
        Tensor(0, "x", shape, "FLOAT32"), Tensor(1, "w", weight_shape, "FLOAT32", weight),
        Tensor(2, "b", bias.shape, "FLOAT32", bias),
    ]  # fmt: skip
    nodes, read = [], 0
    if pads is not None:
        amounts = np.array([[0, 0], *pads, [0, 0]], np.int32)
        read, shape = 4, tuple(int(s) for s in np.array(shape) + amounts.sum(axis=1))
        tensors += [Tensor(3, "pads", (4, 2), "INT32", amounts), Tensor(4, "padded", shape, "FLOAT32")]
        nodes.append(Node("PAD", spec("PAD").attrs(), (0, 3), (4,)))
    (out,) = [conv.infer_shape([shape, weight_shape], attrs, [None, None])]
    tensors.append(Tensor(5, "y", out, "FLOAT32"))
    nodes.append(Node("CONV_2D", attrs, (read, 1, 2), (5,)))
    graph = Graph({t.id: t for t in tensors}, tuple(nodes), (0,), (5,))
    graph.check()
    return graph


def convolved(graph, x):
    """By torch, from the graph's own constants; ``x`` [B, H, W, C].

    In float64: the float32 convolution of one channel, 1x5 taps on 6 columns, stride 2, gives garbage in torch 2.13.
    """
    conv = graph.producer(5)
    weight, bias = (torch.from_numpy(graph.constant(t)).double() for t in (1, 2))
    x = x.permute(0, 3, 1, 2)
    if conv.inputs[0] == 4:
        (top, bottom), (left, right) = graph.constant(3)[1:3].tolist()
        x = F.pad(x, (left, right, top, bottom))
    elif conv.attrs.padding == "SAME":
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(
            x.shape[2:], weight.shape[1:3], (conv.attrs.stride_h, conv.attrs.stride_w), strict=True)]  # fmt: skip
        x = F.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
    stride = (conv.attrs.stride_h, conv.attrs.stride_w)
    return F.relu(F.conv2d(x, weight.permute(0, 3, 1, 2), bias, stride=stride)).permute(0, 2, 3, 1)


def result(graph, x):
    return Executor(graph, torch.float64).run(x)[5][:, 0]


@settings(max_examples=100, deadline=None)
@example(4, 3, 1, 5, 1, "VALID", 1, (0, 0, 0, 0))
@given(
    st.integers(4, 13), st.integers(2, 6), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4),
    st.sampled_from(["SAME", "VALID", "PAD"]), st.integers(1, 2), st.tuples(*[st.integers(0, 3)] * 4),
)  # fmt: skip
def test_the_values_are_those_of_the_convolution(height, half, rows, taps, channels, padding, stride, amounts):
    pads = (amounts[:2], amounts[2:]) if padding == "PAD" else None
    size = (height, 2 * half)
    padded = [n + sum(p) for n, p in zip(size, pads or ((0, 0), (0, 0)), strict=True)]
    assume(padded[0] >= rows and padded[1] >= taps)
    graph = stem(size, (rows, taps), channels, padding=padding.replace("PAD", "VALID"), stride=(stride, 2), pads=pads)
    x = torch.from_numpy(random.normal(size=(2, *size, channels)))
    found = pixel_pairs.apply(graph)
    found.check()
    expected = convolved(graph, x)
    assert result(found, x).shape == expected.shape
    assert torch.allclose(result(found, x), expected, atol=1e-9)


@pytest.mark.parametrize("form", [{"padding": "SAME"}, {"pads": ((1, 1), (1, 1))}])
def test_three_by_three_pixels_are_three_by_two_pairs(form):
    found = pixel_pairs.apply(stem((8, 8), (3, 3), 3, **form))
    assert [n.op for n in found.nodes] == ["RESHAPE", "PAD", "CONV_2D"]
    conv = found.producer(5)
    assert found.tensors[conv.inputs[1]].shape == (5, 3, 2, 6)
    assert (conv.attrs.stride_h, conv.attrs.stride_w, conv.attrs.padding) == (2, 1, "VALID")


@pytest.mark.parametrize(
    "graph",
    [
        stem((8, 9), (3, 3), 3, padding="SAME"), stem((8, 8), (3, 3), 5, padding="SAME"),
        stem((8, 8), (3, 3), 3, padding="SAME", stride=(1, 1)),
        stem((8, 8), (3, 3), 4, padding="SAME", weight_channels=2, outputs=4),
    ],
)  # fmt: skip
def test_odd_widths_many_channels_single_strides_and_groups_stay(graph):
    assert pixel_pairs.apply(graph).nodes == graph.nodes
