"""The accuracy benchmark: its rows exist, are not made twice, and its sums are those of the files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import accuracy, plots
from benchmarks._files import have_rows, write_rows
from qhyvit.config import MethodConfig
from qhyvit.errors import InputError
from qhyvit.lowering.lower import lower
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.qhyvit_options import QhyvitOptions
from qhyvit.plan import QuantPlan
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.probe import make_interpreter, run
from qhyvit_device.preprocess import Preprocess
from qhyvit_device.preprocess import quantize as codes_of
from tests import _tiny


def test_every_row_names_options_that_its_method_has():
    for name, row in accuracy.ROWS.items():
        assert set(row.options) <= set(method(row.method).defaults), name


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Calibration images, two labelled folders, and a work directory's name."""
    folder = tmp_path_factory.mktemp("accuracy")
    for seed, (name, count) in enumerate({"train": 4, "one": 3, "two": 5}.items()):
        _tiny.pictures(folder / name, count, seed)
    return folder


def arguments(place, *more):
    model = f"{Path(_tiny.__file__)}:make"
    images = ["--images", place / "train", "--evaluate", place / "one", place / "two"]
    given = [model, *images, "--work", place / "work", "--count", 4, *more]
    return accuracy._parser().parse_args([str(a) for a in given])


def test_rows_of_one_run_count_each_set_and_all(place):
    rows = accuracy.one(arguments(place), "minmax", 0)
    assert [(r["counted"], r["set"], r["images"]) for r in rows] == [
        (way, *found) for way in ("full", "partial", "deployed integer")
        for found in (("one", "3"), ("two", "5"), ("all", "8"))
    ]  # fmt: skip
    for one, two, both in (rows[i : i + 3] for i in (0, 3, 6)):
        for share in ("top1_percent", "agreement_percent"):
            assert 3 * float(one[share]) + 5 * float(two[share]) == pytest.approx(8 * float(both[share]), abs=0.05)
    deployed = rows[-1]
    kept = accuracy.kept_file(arguments(place), "minmax", 0).read_bytes()
    assert (deployed["size_bytes"], deployed["file_sha256"]) == (len(kept), hashlib.sha256(kept).hexdigest())
    assert deployed["float_tensors"] == 0
    assert deployed["ops"] > 0


def test_calibration_images_are_not_counted(place):
    args = arguments(place)
    args.evaluate.append(args.images)
    with pytest.raises(InputError, match="4 images are in both folders"):
        accuracy.one(args, "minmax", 0)


def test_a_row_is_searched_as_a_build_of_its_profile_would(place):
    setup = accuracy._setup(arguments(place), 3)
    for name in ("qhyvit", "qhyvit, cpu profile"):
        row = accuracy.ROWS[name]
        problem, options = accuracy.problem_of(setup, row, MethodConfig(row.method, row.options, 3))
        assert problem.target.profile == row.profile
        assert (problem.seed, problem.bits) == (3, 8)
        assert options == QhyvitOptions()
    six, options = accuracy.problem_of(setup, accuracy.ROWS["qhyvit"], MethodConfig("qhyvit", {}, 0, 6))
    assert (six.bits, options) == (6, QhyvitOptions().without_int16().without_log())
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
