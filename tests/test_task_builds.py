"""Tiny networks of every task, from the module to what the bundle's model gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert.interpreter import Interpreter
from scipy import special
from torch import nn

import qhyvit
from qhyvit.errors import QhyvitError
from qhyvit.work import FACTS, MODEL
from qhyvit_device.preprocess import normalize
from qhyvit_device.runner import Model

SIZE, COUNT, HELD_OUT = 32, 16, 24
MAP = (SIZE // 2, SIZE // 2)


class Net(nn.Module):
    """Two convolutions; ``end`` makes outputs of this module and its map [1, 12, 8, 8]."""

    def __init__(self, end, outputs):
        super().__init__()
        torch.manual_seed(0)
        self.preprocess = {"input_size": SIZE, "mean": 0.5, "std": 0.25}
        self.stem, self.body = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1)
        self.head, self.pixels, self.end = nn.Linear(12, outputs), nn.Conv2d(12, 4, 1), end
        with torch.no_grad():
            self.head.weight *= 8
            self.pixels.weight *= 8

    def forward(self, x):
        y = F.silu(self.body(torch.relu(self.stem(x))))
        return self.end(self, y)


def vector(net, y):
    return net.head(y.mean((2, 3)))


def pixels(net, y):
    return F.interpolate(net.pixels(y), scale_factor=2.0, mode="bilinear")


def several(net, y):
    return {"map": pixels(net, y), "vectors": (vector(net, y), vector(net, y.flip(3))[:, :1])}


CASES = {  # what the module gives, how many values, the task that is asked for, and the facts
    "one logit": (vector, 1, None, "multilabel", "", {"output": [1]}),
    "one probability": (lambda n, y: vector(n, y).sigmoid(), 1, None, "multilabel", "LOGISTIC", {"output": [1]}),
    "labels": (lambda n, y: vector(n, y).sigmoid(), 5, None, "multilabel", "LOGISTIC", {"output": [5]}),
    "classes": (lambda n, y: vector(n, y).softmax(1), 5, None, "classify", "SOFTMAX", {"output": [5]}),
    "values": (vector, 3, "regress", "regress", "", {"output": [3]}),
    "embedding": (lambda n, y: F.normalize(vector(n, y)), 16, "embed", "embed", "", {"output": [16]}),
    "map": (pixels, 1, None, "segment", "", {"output": [*MAP, 4]}),
    "map of probabilities": (lambda n, y: pixels(n, y).softmax(1), 1, None, "segment", "SOFTMAX",
                             {"output": [*MAP, 4]}),
    "mask": (lambda n, y: pixels(n, y)[:, :1].sigmoid(), 1, None, "segment", "LOGISTIC", {"output": [*MAP, 1]}),
    "several": (several, 5, None, "raw", "",
                {"map": [4, *MAP], "vectors.output_0": [5], "vectors.output_1": [1]}),
}  # fmt: skip
BY_QHYVIT = "several"
FAST = {"rounds": 1, "learn": 0, "search_images": 8}


def arrays(seed=0):
    """Pixels of a few colours, [SIZE, SIZE, 3] each, from dark to light."""
    for i in range(COUNT + HELD_OUT):
        rng = np.random.default_rng((seed, i))
        squares = np.kron(rng.random((4, 4, 3)) * rng.random(3), np.ones((8, 8, 1)))
        yield (255 * np.clip(squares + 0.05 * rng.standard_normal(squares.shape), 0, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Builds a case once: the module, what the build gave, what it said."""
    base, kept = tmp_path_factory.mktemp("builds"), {}

    def build(name, method="minmax"):
        if (name, method) not in kept:
            end, outputs, task = CASES[name][:3]
            net, lines = Net(end, outputs).eval(), []
            options = FAST if method == "qhyvit" else None
            found = qhyvit.build(net, arrays(), base / f"{name}-{method}", count=COUNT, method=method, options=options,
                                 task=task, log=lines.append)  # fmt: skip
            kept[name, method] = net, found, lines
        return kept[name, method]

    return build


BUILDS = [*((name, "minmax") for name in CASES), (BY_QHYVIT, "qhyvit"), ("one logit", "qhyvit")]


@pytest.mark.parametrize(("name", "method"), BUILDS)
def test_it_is_built_and_proven(made, name, method):
    _, _, _, task, cut, outputs = CASES[name]
    _, built, lines = made(name, method)
    facts = json.loads((built.work / FACTS).read_text())
    assert (facts["task"], facts["cut"]) == (task, cut)
    assert {o["name"]: o["shape"] for o in facts["outputs"]} == outputs
    assert built.verdict["passed"]
    assert (built.plan.task, built.verdict["against_float"]["task"]) == (task, task)
    assert built.verdict["against_float"]["images"] == HELD_OUT
    asked = "as asked" if CASES[name][2] else "by the form of the outputs"
    assert any(line.startswith(f"export: task {task}, {asked}") for line in lines)
    manifest = Model.load(built.bundle).manifest
    assert (manifest.task, [o.name for o in manifest.outputs]) == (task, [*outputs])
    assert [list(o.shape) for o in manifest.outputs] == [[1, *shape] for shape in outputs.values()]


@pytest.mark.parametrize(("name", "method"), BUILDS)
def test_the_model_gives_what_the_hosts_file_and_its_simulation_give(made, name, method):
    _, built, _ = made(name, method)
    model, solved = Model.load(built.bundle), qhyvit.stages.solved(qhyvit.work.Work(built.work))
    interpreter = Interpreter(model_content=(built.work / MODEL).read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    for image in [*arrays(1)][:3]:
        codes = model.prepare(image)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], codes[None])
        interpreter.invoke()
        expected = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
        found = model.run(codes)
        assert all(np.array_equal(found[n], y.reshape(found[n].shape))
                   for n, y in zip(found, expected, strict=True))  # fmt: skip
        entry = solved.plan.tensors[solved.shipped.tensors[solved.shipped.inputs[0]].name]
        x = (codes[None].astype(np.float64) - entry.zero_point[0]) * entry.scale[0]
        rows = np.concatenate([found.dequantized(n).ravel() for n in found])
        assert np.allclose(qhyvit.run(solved.shipped, x, solved.plan)[0], rows, rtol=1e-6)


def given_by(net, model, image):
    """The module's outputs on the values that the model's input stands for, [...] each."""
    x = torch.from_numpy(normalize(image[None], model.manifest.preprocess)).permute(0, 3, 1, 2)
    with torch.no_grad():
        found = net(x)
    if not isinstance(found, dict):
        return [found[0].numpy()]
    return [found["map"][0].numpy(), *(t[0].numpy() for t in found["vectors"])]


def read_by(name, model, image):
    """What the device's own reading makes of it, in the module's form."""
    outputs = model.run(model.prepare(image))
    task = CASES[name][3]
    if task in ("classify", "multilabel"):
        shares = {p.index: p.probability for p in model.predictions(outputs)}
        return [np.array([shares[i] for i in range(len(shares))])]
    if task == "regress":
        return [np.array([v.value for v in model.values(outputs)])]
    if task == "embed":
        return [model.embed(image)]
    if task == "raw":
        return [values[0] for values in model.result(outputs).values()]
    logits = outputs.dequantized()[0].transpose(2, 0, 1)
    return [special.expit(logits) if name == "mask" else special.softmax(logits, 0) if CASES[name][4] else logits]


@pytest.mark.parametrize(("name", "method"), BUILDS)
def test_what_a_board_shows_is_what_the_module_gives(made, name, method):
    """Also where the module gives probabilities: none is applied twice, and none is lost."""
    net, built, _ = made(name, method)
    model, pairs = Model.load(built.bundle), []
    for image in [*arrays(2)][:12]:
        expected = given_by(net, model, image)
        if name == "one logit":
            expected = [special.expit(expected[0])]
        pairs.append((expected, read_by(name, model, image)))
    for i in range(len(pairs[0][0])):
        a, b = (np.stack([pair[k][i] for pair in pairs]) for k in (0, 1))
        assert a.shape == b.shape
        assert ((a - b) ** 2).mean() < 0.05 * a.var()


@pytest.mark.parametrize("name", ["map", "mask"])
def test_the_classes_of_pixels_are_the_modules(made, name):
    net, built, _ = made(name)
    model = Model.load(built.bundle)
    alike = []
    for image in [*arrays(3)][:8]:
        (y,) = given_by(net, model, image)
        found = model.segmentation(model.run(model.prepare(image)), *MAP).classes
        alike.append((found == (y[0] > 0.5 if name == "mask" else y.argmax(0))).mean())
    assert np.mean(alike) > 0.9


def test_one_logit_is_searched_for_and_no_plan_is_that_of_extremes(made):
    """The softmax of one number is always 1: no gradient, and all ranges would be those of min-max."""
    (_, plain, _), (_, searched, _) = made("one logit"), made("one logit", "qhyvit")
    chosen = [q for q in searched.plan.tensors.values() if q.choice.observer == "hessian"]
    assert len(chosen) >= 4
    assert any(q.score is not None and q.score > 0 for q in chosen)
    assert {n: q.scale for n, q in plain.plan.tensors.items()} != {n: q.scale for n, q in searched.plan.tensors.items()}


@pytest.mark.parametrize(("name", "words"), [
    ("several", "--output-weight other: the outputs are map, vectors.output_0, vectors.output_1"),
    ("one logit", "--output-weight other: the outputs are output$"),
])  # fmt: skip
def test_weights_of_outputs_that_are_not_there_are_refused_before_the_conversion(name, words, tmp_path, monkeypatch):
    monkeypatch.setattr("qhyvit.models.shared.export.convert", None)
    end, outputs = CASES[name][:2]
    with pytest.raises(QhyvitError, match=words) as caught:
        qhyvit.build(Net(end, outputs), arrays(), tmp_path / "out", count=4, output_weights={"other": 2.0})
    assert "\n" not in str(caught.value)


def test_another_number_of_names_is_refused_before_the_conversion(tmp_path, monkeypatch):
    monkeypatch.setattr("qhyvit.models.shared.export.convert", None)
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(QhyvitError, match="holds 2 names for 5 classes"):
        qhyvit.build(Net(vector, 5), arrays(), tmp_path / "out", count=4, labels=tmp_path / "names.txt")


def test_what_does_not_fit_is_refused_where_the_export_is_there_already(made, tmp_path):
    net, built, _ = made("several")
    with pytest.raises(QhyvitError, match="--output-weight other: the outputs are map"):
        qhyvit.build(net, arrays(), tmp_path / "out", count=COUNT, work=built.work, output_weights={"other": 2.0})


def test_a_calibration_refuses_them_before_it_looks_at_an_image(made, tmp_path):
    _, built, _ = made("several")
    work, nothing = qhyvit.work.Work(built.work), qhyvit.config.DataConfig(tmp_path / "none")
    method = qhyvit.config.MethodConfig("minmax", output_weights={"other": 2.0})
    with pytest.raises(QhyvitError, match="--output-weight other: the outputs are map"):
        qhyvit.stages.calibrate(work, nothing, method)


@pytest.mark.parametrize(("task", "name"), [("segment", "one logit"), ("classify", "one logit"), ("embed", "map"),
                                            ("classify", "several")])  # fmt: skip
def test_another_tasks_outputs_are_refused_before_the_conversion(task, name, tmp_path, monkeypatch):
    monkeypatch.setattr("qhyvit.models.shared.export.convert", None)
    end, outputs = CASES[name][:2]
    with pytest.raises(QhyvitError, match=f"--task {task} needs one output .* it may be ") as caught:
        qhyvit.build(Net(end, outputs), arrays(), tmp_path / "out", count=4, task=task)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
