"""Convolutions of other dimensions: over a sequence they are exported, over a volume refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qhyvit.errors import ExportError
from qhyvit.models.shared.export import export
from qhyvit.models.shared.source import open_source
from qhyvit.passes import prepared
from qhyvit.tflite.read import read


class Net(nn.Module):
    """A stem, ``middle`` on what ``shape`` makes of its map, a head."""

    def __init__(self, middle: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.preprocess = {"input_size": 32}
        self.stem, self.middle, self.shape = nn.Conv2d(3, 8, 4, 4), middle, shape
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.stem(x).reshape(self.shape)).flatten(2).mean(2))


def test_layers_over_a_sequence_are_exported() -> None:
    middle = nn.Sequential(
        nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=2), nn.PReLU(), nn.ConvTranspose1d(8, 8, 3, 2, 1, 1),
    )  # fmt: skip
    exported = export(open_source(Net(middle, (1, 8, 64)).eval()))
    assert exported.facts["float_error"] < 1e-5
    ops = [n.op for n in prepared(read(exported.tflite)).nodes]
    assert ops.count("CONV_2D") >= 2
    assert ops.count("TRANSPOSE_CONV") == 1
    assert "RELU" not in ops


def test_a_layer_over_a_volume_is_refused_by_name() -> None:
    with pytest.raises(ExportError, match="Conv3d at middle"):
        export(open_source(Net(nn.Conv3d(8, 8, 3, padding=1), (1, 8, 1, 8, 8)).eval()))
