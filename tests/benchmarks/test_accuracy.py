"""The accuracy benchmark: its rows exist, are not made twice, and its sums are those of the files."""

import numpy as np
import torch

from benchmarks import accuracy, plots
from benchmarks._files import have_rows, write_rows
from qhyvit.lowering.lower import lower
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.plan import QuantPlan
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.probe import make_interpreter, run
from qhyvit_device.preprocess import Preprocess
from qhyvit_device.preprocess import quantize as codes_of


def test_every_row_names_options_that_its_method_has():
    for name, row in accuracy.ROWS.items():
        assert set(row.options) <= set(method(row.method).defaults), name


def test_a_row_is_searched_in_the_profile_that_it_is_deployed_in(small_v1, inputs):
    how = Preprocess("squash", 128, "bicubic", (0.0,) * 3, (1.0,) * 3)
    setup = accuracy.Setup(small_v1.graph, small_v1.graph, how, inputs[:2],
                           np.zeros((2, 1, 1, 3), np.uint8), np.zeros(2, np.int64), np.zeros((2, 8)))  # fmt: skip
    for row in accuracy.ROWS.values():
        assert accuracy.problem_of(setup, row, 0, 8).target.profile == row.profile
    assert {row.profile for row in accuracy.ROWS.values()} == {"integer", "cpu"}


def test_a_row_that_is_there_is_found_by_its_values(tmp_path):
    path = tmp_path / "r.csv"
    assert not have_rows(path, {"row": "a"})
    write_rows(path, [{"row": "a", "seed": 0}], ("row", "seed"))
    assert have_rows(path, {"row": "a", "seed": 0})
    assert not have_rows(path, {"row": "a", "seed": 1})


def test_the_typed_graph_gives_the_files_logits(small_v1, pictures):
    inputs = torch.from_numpy(pictures[:4].astype(np.float32) / 255)
    solution = method("minmax").search(Problem(small_v1.graph, inputs))
    typed = lower(solution.shipped, QuantPlan(solution.tensors, "minmax")).graph
    model = serialize(typed)
    how = Preprocess("squash", 128, "bicubic", (0.0,) * 3, (1.0,) * 3)
    logits = accuracy.as_the_file(typed, pictures[:4], how)
    graph = solution.graph
    first, last = (solution.tensors[graph.tensors[t].name] for t in (graph.inputs[0], graph.outputs[0]))
    interpreter = make_interpreter(model, "litert")
    for picture, found in zip(pictures[:4], logits, strict=True):
        codes = run(interpreter, codes_of(picture, how, first.scale[0], first.zero_point[0], "int8")[None]).ravel()
        expected = (codes.astype(np.float64) - last.zero_point[0]) * last.scale[0]
        assert np.array_equal(found, expected)


def test_mean_sqnr_falls_with_fewer_bits(small_v1, inputs):
    chosen = method("minmax")
    found = []
    for bits in (8, 5):
        solution = chosen.search(Problem(small_v1.graph, inputs[:4], bits=bits), chosen.defaults)
        found.append(accuracy.mean_sqnr(solution, inputs[:2]))
    assert found[0] > found[1] + 6
    assert torch.isfinite(torch.tensor(found)).all()


def test_the_picture_is_drawn(tmp_path, monkeypatch):
    base = {"model": plots.COMPARED, "counted": "deployed integer", "bits": 8, "float_top1_percent": 80,
            "calibration_images": 32, "agreement_percent": 90}  # fmt: skip
    rows = [
        {**base, "table": "methods", "row": "qhyvit", "seed": s, "top1_percent": 79 + s} for s in (0, 1)
    ] + [{**base, "table": "ablation", "row": "scale", "seed": 0, "top1_percent": 60}]  # fmt: skip
    other = {**base, "model": "another", "table": "methods", "row": "qhyvit", "seed": 2, "top1_percent": 50}
    write_rows(tmp_path / "accuracy.csv", [*rows, other], ("row", "seed"))
    monkeypatch.setattr(plots, "RESULTS", tmp_path)
    assert plots._bars("methods", "top1_percent") == [("qhyvit (32)", 79.5, 79.0, 80.0)]
    plots.draw(tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
