"""How right outputs are by labels: each figure beside loops or another program, and labels as people write them."""

import itertools
import json
import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from qhyvit import data, files
from qhyvit.errors import InputError
from qhyvit.evaluation import evaluate, evaluated, float_file
from qhyvit.labels import BY_BUILD, labelled_images, order_hint
from qhyvit.report.pictures import labelled_pictures
from qhyvit.report.request import Request
from qhyvit.sweep.parts import evaluate_in_parts
from qhyvit.sweep.pool import Pool
from qhyvit.tasks import task
from qhyvit.tasks.segment import resized_classes
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.score import LabelMaps, Score, Truth, paired
from qhyvit_device.results import Outputs, segmentation
from qhyvit_device.runner import Model, TfliteFile
from tests._bundles import SIZE, make_bundle, picture
from tests._commands import called

quiet = lambda what, share=0.0: None  # noqa: E731


@pytest.mark.parametrize("seed", range(4))
def test_mean_average_precision_is_that_of_loops(seed):
    rng = np.random.default_rng(seed)
    outputs, truth = rng.normal(size=(23, 4)), (rng.random((23, 4)) < 0.3).astype(float)
    truth[:, 3] = 0  # no image has the last label: it has no precision
    wanted = []
    for label in range(3):
        places = [i for i in range(23) if truth[i, label]]
        above = [[j for j in range(23) if outputs[j, label] >= outputs[i, label]] for i in places]
        wanted.append(np.mean([truth[rows, label].mean() for rows in above]))
    found = task("multilabel").score(outputs, truth, Layout(("o",), ((4,),)))
    assert found.figures["map_percent"] == pytest.approx(100 * np.mean(wanted))
    assert found.figures["right_percent"] == pytest.approx(100 * np.mean((outputs > 0) == (truth > 0)))


def test_one_logit_is_right_or_wrong_and_labels_are_in_part():
    one = task("multilabel").score(np.array([[1.0], [-1.0]]), np.array([[1.0], [1.0]]), Layout(("o",), ((1,),)))
    assert (one.each.dtype, one.each.tolist(), one.decisions.tolist()) == (bool, [True, False], [1, 0])
    two = task("multilabel").score(np.array([[1.0, -1.0]]), np.array([[1.0, 1.0]]), Layout(("o",), ((2,),)))
    assert (two.each.tolist(), two.decisions) == ([0.5], None)


def maps(folder, rng, height, width, classes):
    """Label maps with every class, and some void pixels."""
    found = []
    for i in range(3):
        found.append(rng.choice([*range(classes), 255], size=(height, width)).astype(np.uint8))
        Image.fromarray(found[-1]).save(folder / f"{i}.png")
    return found


@pytest.mark.parametrize("class_map", [None, (2, 0, 0, 1)])
def test_intersection_over_union_is_that_of_loops(tmp_path, class_map):
    rng = np.random.default_rng(0)
    labels = maps(tmp_path, rng, 5, 7, 4 if class_map is None else 3)
    logits = rng.normal(size=(3, 5, 7, 4))
    named = class_map or (0, 1, 2, 3)
    hits, either, right, counted = [0] * 4, [0] * 4, 0, 0
    for image, y, x in itertools.product(range(3), range(5), range(7)):
        said, is_there = named[int(logits[image, y, x].argmax())], int(labels[image][y, x])
        if is_there > max(named):
            continue
        right, counted = right + (said == is_there), counted + 1
        for c in range(4):
            hits[c] += said == is_there == c
            either[c] += c in (said, is_there)
    present = [c for c in range(4) if any((m == c).any() for m in labels)]
    truth = LabelMaps([tmp_path / f"{i}.png" for i in range(3)], class_map)
    found = task("segment").score(logits.reshape(3, -1), truth, Layout(("o",), ((5, 7, 4),)))
    assert found.figures["miou_percent"] == pytest.approx(100 * np.mean([hits[c] / either[c] for c in present]))
    assert found.figures["pixel_accuracy_percent"] == pytest.approx(100 * right / counted)


def test_maps_are_resized_as_a_board_does(tmp_path):
    model = Model.load(make_bundle(tmp_path / "b", "segment"))
    codes = np.random.default_rng(1).integers(-128, 128, (1, SIZE // 2, SIZE // 2, 3)).astype(np.int8)
    (fact,) = model.manifest.outputs
    here = resized_classes((codes[0].astype(float) - fact.zero_point) * fact.scale, 31, 17)
    assert np.array_equal(here, segmentation(Outputs((fact,), [codes]), model.labels, 31, 17).classes)


def test_a_neighbour_is_another_image():
    rng = np.random.default_rng(2)
    outputs, classes = rng.normal(size=(12, 5)), rng.integers(0, 3, 12)
    right = []
    for i in range(12):
        angles = {
            j: outputs[i] @ outputs[j] / math.sqrt((outputs[i] @ outputs[i]) * (outputs[j] @ outputs[j]))
            for j in range(12) if j != i
        }  # fmt: skip
        right.append(classes[max(angles, key=angles.__getitem__)] == classes[i])
    found = task("embed").score(outputs, classes, Layout(("o",), ((5,),)))
    assert found.each.tolist() == right
    assert found.figures["neighbour_percent"] == pytest.approx(100 * np.mean(right))


def test_errors_of_values_are_in_their_units_and_each_image_in_spreads():
    truth = np.array([[0.0, 0.0], [2.0, 200.0]])
    found = task("regress").score(truth + np.array([[1.0, 0.0], [0.0, 50.0]]), truth, Layout(("o",), ((2,),)))
    assert found.figures["mae"] == pytest.approx(51 / 4)
    assert found.figures["rmse"] == pytest.approx(math.sqrt((1 + 2500) / 4))
    assert found.figures["r_squared"] == pytest.approx(((1 - 0.5) + (1 - 0.125)) / 2)
    assert found.each.tolist() == pytest.approx([-0.5, -0.25])


def test_mcnemars_test_is_the_binomial_of_gained_and_lost():
    a, b = np.array([1, 1, 1, 0, 0, 1, 1], bool), np.array([0, 0, 1, 1, 0, 1, 0], bool)
    found = paired(Score({}, a, np.arange(7)), Score({}, b, np.array([0, 1, 2, 3, 4, 5, 0])))
    assert (found.test, found.gained, found.lost) == ("McNemar", 3, 1)
    assert found.p_value == pytest.approx(2 * (math.comb(4, 0) + math.comb(4, 1)) / 2**4)
    assert found.agree == pytest.approx(6 / 7)


def test_wilcoxons_test_counts_all_signs_of_the_ranks():
    difference = np.array([0.1, -0.2, 0.3, 0.4, 0.5, 0.0])
    found = paired(Score({}, difference), Score({}, np.zeros(6)))
    below = sum(sum(signs[i] * (i + 1) for i in range(5)) <= 2 for signs in itertools.product((0, 1), repeat=5))
    assert (found.test, found.gained, found.lost, found.agree) == ("Wilcoxon", 4, 1, None)
    assert found.p_value == pytest.approx(2 * below / 2**5)
    assert paired(Score({}, difference), Score({}, difference)).p_value == 1.0


@pytest.fixture
def place(tmp_path):
    """Pictures of one colour each, labels of values and of maps."""
    (tmp_path / "images").mkdir()
    (tmp_path / "maps").mkdir()
    for name, colour in (("a", "r"), ("b", "g"), ("c", "b")):
        picture([colour]).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(np.full((SIZE, SIZE), "rgb".index(colour), np.uint8)).save(tmp_path / "maps" / f"{name}.png")
    return tmp_path


def labelled(place, *rows):
    (place / "images" / "labels.csv").write_text("\n".join(rows) + "\n")


def test_a_map_is_right_where_the_colours_are(place):
    bundle = make_bundle(place / "b", "segment")
    found = evaluate(bundle, place / "images", place / "maps", None, None, quiet)
    assert (found.images, found.integer.figures["miou_percent"], found.alike) == (3, 100.0, None)
    swapped = evaluate(bundle, place / "images", place / "maps", None, None, quiet, class_map=(1, 0, 2))
    assert swapped.integer.figures["pixel_accuracy_percent"] == pytest.approx(100 / 3)
    assert swapped.integer.figures["miou_percent"] == pytest.approx(100 / 3)


def test_parts_give_what_one_process_gives(place):
    bundle = make_bundle(place / "b", "segment")
    asked = bundle, place / "images", place / "maps", bundle / "model.tflite", None
    whole = evaluate(*asked, quiet, class_map=(1, 0, 2))
    parts = evaluate_in_parts(*asked, Pool(workers=1), quiet, print, class_map=(1, 0, 2))
    assert parts.to_json() == whole.to_json()
    assert whole.to_json()["alike"]["share"] == 1.0  # the same file twice, its codes taken for what they stand for
    assert whole.paired.p_value == 1.0


def test_labels_of_values_are_columns(place):
    labelled(place, "red,file,green,blue", "1,a.png,0,0", "0,b.png,1,0", "0,c.png,1,0")
    found = evaluate(make_bundle(place / "b", "multilabel"), place / "images", None, None, None, quiet)
    read = data.read_labels(place / "images", None, Truth.VALUES)
    assert read.names == ("red", "green", "blue")
    assert found.integer.figures["right_percent"] == pytest.approx(100 * 7 / 9)


@pytest.mark.parametrize(("name", "labels", "wanted"), [
    ("several", (), ["steep", "map", "means"]), ("regress", (), ["value 1", "value 0"]),
    ("regress", ("round", "hollow"), ["hollow", "round"]), ("regress", ("same", "same"), ["value 1", "value 0"]),
    ("regress", ("class 0", "class 1"), ["value 1", "value 0"]),
])  # fmt: skip
def test_every_output_is_shown_the_worst_first(name, labels, wanted):
    """Errors of a known size: what is kept of each is one less its square over the variance."""
    layout = Layout(("map", "means", "steep"), ((2,), (1,), (1,))) if name == "several" else Layout(("o",), ((2,),))
    errors = np.array([0.2, 0.2, 0.1, 0.3] if name == "several" else [0.1, 0.2])
    reference = np.array([[1.0], [-1.0]]) @ np.ones((1, len(errors)))
    what = task("raw" if name == "several" else "regress")
    found = evaluated(what, layout, reference + errors, reference, None, "squash", labels=labels)
    assert [*found.each] == wanted
    best, worst = max(found.each.values()), found.each[wanted[0]]
    share = 100.0 if name == "several" else 1.0
    assert worst == found.alike.reading == pytest.approx(share * (1 - max(errors) ** 2))
    assert found.each[wanted[-1]] == best == pytest.approx(share * (1 - min(errors) ** 2))
    assert [*found.to_json()["alike"]["each"].items()] == [*found.each.items()]


def test_a_single_output_has_no_table_of_its_own():
    layout = Layout(("o",), ((2,),))
    found = evaluated(task("raw"), layout, np.eye(2), np.eye(2), None, "squash")
    assert (found.each, found.to_json()["alike"]["each"]) == ({}, {})


def test_the_command_prints_every_output(place, capfd):
    bundle = make_bundle(place / "b", "several")
    asked = ["evaluate", bundle, "--images", place / "images", "--float", bundle / "model.tflite"]
    assert called(*asked) == 0
    printed = capfd.readouterr().out
    assert "each output, the worst first" in printed
    assert all(re.search(rf"│ {name} +│ +100\.00 │", printed) for name in ("map", "means", "steep"))
    assert called(*asked, "--json") == 0
    assert json.loads(capfd.readouterr().out)["alike"]["each"] == {"map": 100.0, "means": 100.0, "steep": 100.0}


def test_columns_that_are_taken_in_their_order_are_told(place):
    labelled(place, "file,hollow,round", "a.png,0,1")
    for names, told in (((), True), (("class 0", "class 1"), True), (("round", "hollow"), False)):
        found = labelled_images(place / "images", None, task("multilabel"), 2, names=names)
        line = order_hint(found.names, names)
        said = f"the columns hollow, round are taken to be the model's values in this order: {BY_BUILD}"
        assert line == (said if told else None)
    labelled(place, "file,any", "a.png,1")
    assert order_hint(labelled_images(place / "images", None, task("regress"), 1).names, ()) is None


def by_report(bundle, images, log):
    labelled_pictures(Request(bundle, log=log), images, Model.load(bundle))


@pytest.mark.parametrize("command", [
    lambda bundle, images, log: evaluate(bundle, images, None, None, None, quiet, log), by_report,
], ids=["evaluate", "report"])  # fmt: skip
def test_whoever_reads_such_labels_tells_so(place, command):
    labelled(place, "file,a,b,c", "a.png,1,0,0")
    made = make_bundle(place / "b", "multilabel")
    (made / "labels.txt").write_text("class 0\nclass 1\nclass 2\n")
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["checksums"]["labels.txt"] = files.sha256((made / "labels.txt").read_bytes())
    (made / "manifest.json").write_text(json.dumps(manifest))
    lines = []
    command(made, place / "images", lines.append)
    (line,) = lines
    assert "columns a, b, c are taken" in line
    assert line.endswith(": a build that names them with --labels goes by the names")


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("regress", ["file,v", "a.png,x"], "row 2: v is 'x', must be a number"),
        ("regress", ["file,v", "a.png,nan"], "must be a number"),
        ("regress", ["file,v,w", "a.png,1,2"], "labels have 2 values an image, the model gives 1"),
        ("regress", ["file", "a.png"], "one for each value"),
        ("regress", ["file,v,v", "a.png,1,2"], "one for each value"),
        ("multilabel", ["file,r,g,b", "a.png,0,1,2"], "must be 0 or 1"),
        ("multilabel", None, "cannot read labels"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit_are_one_line(place, name, rows, words):
    if rows is not None:
        labelled(place, *rows)
    with pytest.raises(InputError, match=words) as refused:
        evaluate(make_bundle(place / "b", name), place / "images", None, None, None, quiet)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("segment", ["--labels", "images/a.png"], "a folder of maps"),
        ("segment", ["--labels", "images", "--class-map", "0,1"], "--class-map"),
        ("segment", ["--labels", "maps", "--class-map", "0,x,1"], "whole numbers with commas"),
        ("segment", [], "nothing to compare with"),
        ("classify", ["--class-map", "0,1,2"], "--class-map"),
        ("several", ["--labels", "maps"], "nothing is known that labels could say"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_one_line(place, monkeypatch, capfd, name, options, words):
    monkeypatch.chdir(place)
    labelled(place, "file,class_index", "a.png,0", "b.png,1", "c.png,2")
    make_bundle(place / "b", name)
    assert called("evaluate", "b", "--images", "images", *options) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("qhyvit: error")]
    assert words in line


def nothing_may_run(monkeypatch):
    def ran(*_):
        raise AssertionError("an inference began")

    monkeypatch.setattr(TfliteFile, "invoke", ran)


@pytest.mark.parametrize("measure", [evaluate, partial(evaluate_in_parts, pool=None)])
def test_maps_that_hold_no_classes_are_refused_before_the_inference(place, monkeypatch, measure):
    bundle = make_bundle(place / "b", "segment")
    nothing_may_run(monkeypatch)
    (place / "maps" / "b.png").write_text("no picture")
    picture(["rg"]).save(place / "maps" / "c.png")
    with pytest.raises(InputError, match="2 of 3 label maps cannot be used: ") as refused:
        measure(bundle, place / "images", place / "maps", None, None, progress=quiet, log=quiet)
    said = r"cannot read the label map \S*b\.png: .*; the label map \S*c\.png has colours"
    assert re.search(said, str(refused.value))
    assert "\n" not in str(refused.value)


def test_a_report_refuses_such_maps_too(place, monkeypatch):
    bundle = make_bundle(place / "b", "segment")
    nothing_may_run(monkeypatch)
    picture(["rg"]).save(place / "maps" / "c.png")
    with pytest.raises(InputError, match=r"the label map \S*c\.png has colours"):
        labelled_pictures(Request(bundle, labels=place / "maps"), place / "images", Model.load(bundle))


@pytest.mark.parametrize(("other", "words"), [
    ("classify", r"has outputs \[1, 3\], the bundle \[1, 4, 4, 3\]"), ("several", "has outputs .*, .*, the bundle"),
])  # fmt: skip
def test_a_float_file_of_another_network_is_refused_before_the_inference(place, monkeypatch, other, words):
    bundle, float_model = make_bundle(place / "b", "segment"), make_bundle(place / "o", other) / "model.tflite"
    nothing_may_run(monkeypatch)
    with pytest.raises(InputError, match=words):
        evaluate(bundle, place / "images", None, float_model, None, quiet)


def test_a_float_file_of_another_input_is_refused(place):
    bundle = make_bundle(place / "b", "segment")
    model = Model.load(bundle)
    model.manifest = replace(model.manifest, input=replace(model.manifest.input, height=16, width=16))
    with pytest.raises(InputError, match=r"takes \[1, 8, 8, 3\], the bundle \[1, 16, 16, 3\]: name the float file"):
        float_file(bundle, bundle / "model.tflite", model)


def test_a_missing_map_is_named(place):
    bundle = make_bundle(place / "b", "segment")
    (place / "maps" / "b.png").unlink()
    with pytest.raises(InputError, match=r"has no map for 1 images, first b\.png"):
        evaluate(bundle, place / "images", place / "maps", None, None, quiet)


def test_embeddings_are_judged_with_and_without_labels(place, capfd):
    bundle = make_bundle(place / "b", "embed")
    asked = ["evaluate", bundle, "--images", place / "images", "--float", bundle / "model.tflite", "--json"]
    assert called(*asked) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["integer"], found["alike"]["figures"]["cosine"]) == (None, pytest.approx(1.0))
    labelled(place, "file,class_index", "a.png,0", "b.png,0", "c.png,1")
    assert called(*asked) == 0
    assert json.loads(capfd.readouterr().out)["integer"]["neighbour_percent"] >= 0
