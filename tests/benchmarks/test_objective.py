"""The objective beside the distance: what is drawn, and on which images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import objective
from benchmarks.objective import draw, predicted
from qhyvit.errors import InputError
from qhyvit.methods.shared.hessian import GradientPass
from qhyvit.methods.shared.problem import Batch, Problem
from qhyvit.methods.shared.range_search import first_ranges
from qhyvit.methods.shared.ranges import finish, minmax_weights, spread
from qhyvit.report.cost import rounded_tensors
from qhyvit.sim.fakequant import fake_quantize
from tests._graphs import random_graph


def row(i, predicted, alone, op="ADD"):
    return {"model": "m", "tensor": f"t{i}", "op": op, "images": "4", "predicted": str(predicted), "alone": str(alone)}


def test_the_correlation_is_of_ranks_and_leaves_out_what_has_no_logarithm(tmp_path):
    rows = [row(i, 10.0**i, 3.0 * i**3 + 1, op) for i, op in enumerate(["ADD", "MUL", "CONV_2D", "SOFTMAX"])]
    assert draw(tmp_path / "same.png", rows) == pytest.approx(1.0)
    turned = [row(i, 10.0**i, 9.0 - i) for i in range(4)]
    assert draw(tmp_path / "turned.png", [*turned, row(5, 0.0, 1.0), row(6, 1.0, 0.0)]) == pytest.approx(-1.0)
    assert (tmp_path / "same.png").read_bytes()[:4] == b"\x89PNG"


def test_images_of_the_calibration_are_left_out(tmp_path, monkeypatch):
    paths = {name: tmp_path / name for name in "abcde"}
    drawn = list(paths.items())
    monkeypatch.setattr(objective.data, "calibration_images", lambda folder, count, seed: dict(drawn[:count]))
    monkeypatch.setattr(objective, "pixels_of", lambda shown, shape, how: np.array([ord(p.name) for p in shown]))
    monkeypatch.setattr(objective, "normalize", lambda pixels, how: pixels)
    for name in ("default_preprocess", "input_shape"):
        monkeypatch.setattr(objective, name, lambda facts: None)
    monkeypatch.setattr(objective.data, "preprocess_for", lambda *args: None)
    work, plan = SimpleNamespace(json=lambda name: {}), SimpleNamespace(image_hashes=("a", "c"), seed=0, resize_mode="")
    found = objective.unseen(work, SimpleNamespace(plan=plan), tmp_path, 2)
    assert [chr(x) for x in found] == ["b", "d"]
    with pytest.raises(InputError, match="has 3 images that the calibration did not see, and not 4"):
        objective.unseen(work, SimpleNamespace(plan=plan), tmp_path, 4)


def test_what_is_predicted_is_the_squared_error_times_the_squared_gradient():
    graph = random_graph(["silu of layer", "depthwise"], 1)
    problem = Problem(graph, torch.rand(6, 4, 4, 3, generator=torch.Generator().manual_seed(0)), batch=6)
    quants = finish(graph, {**spread(graph, first_ranges(problem)), **minmax_weights(graph)})
    items = [item for item in rounded_tensors(graph, quants) if item.kind == "activation"]
    found = predicted(problem, SimpleNamespace(plan=SimpleNamespace(tensors=quants)), items)
    step = GradientPass(problem, quants, [item.tensor.id for item in items]).step(
        Batch(0, problem.images, problem.targets)
    )
    assert len(found) > 5
    for item in items:
        if item.tensor.id in found:
            x, g = step.values[item.tensor.id], step.gradients[item.tensor.id]
            direct = ((fake_quantize(x, item.quant) - x) * g).square().double().sum() / 6
            assert found[item.tensor.id] == pytest.approx(float(direct), rel=0.05, abs=1e-12)
