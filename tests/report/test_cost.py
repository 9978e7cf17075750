"""What quantization costs, on small graphs with every kind of layer and of constant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph
from qhyvit.latency.profile import default_profile
from qhyvit.lowering.constants import constants_on_grid_of
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.passes import prepared
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.progress import silent
from qhyvit.report.blocks import cost_facts
from qhyvit.stages.solved import Solved
from qhyvit.tflite.serialize import serialize
from qhyvit.work import FLOAT, LATENCY, VERIFY, Work
from tests._layer_graphs import LAYERS, Maker, graph_of

IMAGES = torch.rand(4, 8, 8, 3, generator=torch.Generator().manual_seed(0))


def with_scalars() -> Graph:
    """Constants of no axis at all, as the converter writes them."""
    m = Maker()
    x = m.op("MUL", m.conv(m.image, 8, 3), m.add("scalar", (), np.array(0.5, np.float32)))
    return m.logits(m.op("SUB", m.add("scalar", (), np.array(0.25, np.float32)), x))


def costs_of(graph: Graph, folder: Path):
    (folder / FLOAT).write_bytes(serialize(graph))
    found = method("minmax").search(Problem(graph, IMAGES), method("minmax").defaults)
    names = [t.name for t in graph.tensors.values()]
    verified = {"passed": True, "checks": [], "files": {}, "census": {"oldest_runtime": "2.5"},
                "sqnr_db": dict.fromkeys(names, 40.0)}  # fmt: skip
    (folder / VERIFY).write_text(json.dumps(verified))
    (folder / LATENCY).write_text(default_profile().to_json())
    solved = Solved(graph, found.shipped, QuantPlan(found.tensors, "minmax"))
    return cost_facts(solved, IMAGES, Work(folder, lambda what, share=0.0: None), "qhyvit build", silent)


def test_a_scalar_constant_has_a_cost(tmp_path) -> None:
    found = costs_of(with_scalars(), tmp_path)
    scalars = [t for t in found.tensors if t.kind == "constant"]
    assert len(scalars) == 2
    assert all(np.isfinite(t.kl) for t in scalars)


def test_a_scalar_stays_one_on_its_grid() -> None:
    graph = with_scalars()
    (first, _) = [t for t in graph.tensors.values() if t.data is not None and t.shape == ()]
    changed = constants_on_grid_of(graph, {first.name: TensorQuant((0.3,), (0,))})
    assert changed.constant(first.id).shape == ()
    assert changed.constant(first.id) == np.float32(2 * 0.3)


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_every_kind_of_layer_has_a_cost(kind, tmp_path) -> None:
    found = costs_of(prepared(graph_of(kind)), tmp_path)
    assert sum(t.kind == "weight" for t in found.tensors) >= 3
    assert found.kl > 0
