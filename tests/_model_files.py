"""Networks of a few layers, written as a model's file or exported, and what the importers say of one."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qhyvit.errors import QhyvitError
from qhyvit.models.shared.export import export
from qhyvit.models.shared.source import open_source
from qhyvit.tflite.serialize import serialize
from qhyvit_device.runner import TfliteFile
from tests._graphs import Builder


def written(path, graph):
    path.write_bytes(serialize(graph))
    return path


def channels_last(ends=("MEAN",), seed=0):
    """[1, 4, 4, 3] -> logits [1, 6]; with other ends a map [1, 4, 4, 6]."""
    b = Builder(np.random.default_rng(seed))
    x = b.add("RELU", b.conv(b.input))
    for op in ends:
        x = b.add("MEAN", x, b.integers(1, 2), keep_dims=False) if op == "MEAN" else b.add(op, x)
    return b.graph(x)


def channels_first(last="MEAN", seed=0):
    """[1, 3, 4, 5] -> logits [1, 6], or a map [1, 6, 4, 5]."""
    b = Builder(np.random.default_rng(seed))
    b.tensors[0] = dataclasses.replace(b.tensors[0], shape=(1, 3, 4, 5))
    turned = b.add("TRANSPOSE", b.input, b.integers(0, 2, 3, 1))
    x = b.add("RELU", b.conv(turned))
    if last == "SOFTMAX":
        x = b.add("SOFTMAX", x)
    x = b.add("MEAN", x, b.integers(1, 2), keep_dims=False) if last == "MEAN" else b.add(
        "TRANSPOSE", x, b.integers(0, 3, 1, 2)
    )  # fmt: skip
    return b.graph(x)


def outputs(data, x):
    return [torch.from_numpy(y) for y in TfliteFile(data).invoke(x)]


def refusal(path, **options):
    with pytest.raises(QhyvitError) as caught:
        export(open_source(str(path), **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Small(nn.Module):
    """[B, 3, 16, 16] -> [B, 4]: a norm over the whole map, a stream, a mean."""

    def __init__(self, end=None):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mix, self.head = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)
        self.norm, self.end = nn.GroupNorm(1, 8), end or nn.Identity()

    def forward(self, pixels):
        x = F.silu(self.stem(pixels))
        x = x + self.mix(self.norm(x))
        return self.end(self.head(x.mean((2, 3))))
