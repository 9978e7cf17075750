"""Cards: the same facts as Markdown and JSON, figures that other commands give, intervals by Wilson's formula."""

import hashlib
import json
import math
import shutil

import numpy as np
import pytest

from qhyvit import card, evaluation
from qhyvit.card import gather
from qhyvit.errors import InputError
from qhyvit_device import manifest as manifests
from tests import _tiny
from tests._bundles import make_bundle
from tests._commands import called


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny network's bundle with its work directory, and labelled images beside it."""
    folder = tmp_path_factory.mktemp("card")
    _tiny.pictures(folder / "train", 12)
    _tiny.pictures(folder / "val", 30, seed=1)
    assert called("build", "--model-py", f"{_tiny.__file__}:make", "--images", folder / "train", "--count", 8,
                  "--method", "minmax", "--min-agreement", 0, "--out", folder / "B") == 0  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def made(place):
    return card.make(card.CardRequest(place / "B", place / "val", bench_seconds=0.01, licence="CC0"))


@pytest.mark.parametrize(("count", "of"), [(0, 10), (1, 10), (45, 60), (10, 10), (516, 650)])
def test_an_interval_is_wilsons(count, of):
    z, p = 1.959963984540054, count / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    expected = [100 * (middle + sign * half) / (1 + z * z / of) for sign in (-1, 1)]
    assert card.interval(count, of) == pytest.approx(expected, abs=1e-9)


def test_figures_are_those_of_an_evaluation(place, made):
    found = evaluation.evaluate(place / "B", place / "val", None, None, None, lambda *_: None)
    right = made.accuracy
    assert (right.images, right.folder) == (30, "val")
    assert {f.name: (f.integer, f.floating) for f in right.figures} == {
        name: (value, found.floating.figures[name]) for name, value in found.integer.figures.items()
        if name in found.task.columns
    }  # fmt: skip
    first = right.figures[0]
    count = round(first.integer * 30 / 100)
    assert (first.low, first.high) == card.interval(count, 30)
    assert right.agreement.integer == found.alike.reading
    assert (right.gained, right.lost, right.p_value) == (found.paired.gained, found.paired.lost, found.paired.p_value)


def test_the_rest_is_what_the_bundle_and_the_file_say(place, made):
    manifest = manifests.load(place / "B" / "manifest.json")
    assert made.size_bytes == (place / "B" / "model.tflite").stat().st_size
    assert made.float_size_bytes == (place / "B.work" / "float.tflite").stat().st_size
    assert (made.model, made.task, made.licence, made.float_tensors) == ("make", "classify", "CC0", 0)
    assert made.made["versions"] == manifest.versions
    assert made.made["method"] == "minmax"
    assert made.made["config"]["data"]["count"] == 8
    assert len(made.made["code"]) == 64
    assert "calibration_image_hashes" not in made.made
    speed = made.speed
    assert 0 < speed.p50_ms <= speed.p90_ms <= speed.p99_ms
    assert speed.runs >= card.RUNS
    assert speed.first_ms > 0
    assert speed.peak_memory_mib > 1
    assert made.run[3] == "qhyvit-device classify B photo.jpg"


def test_ops_off_the_delegate_are_those_that_the_interpreter_keeps(place, made):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(place / "B" / "model.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    run = [d for d in interpreter._get_ops_details() if d["op_name"] != "DELEGATE"]
    inside = sum(made.ops.values()) - sum(made.off_delegate.values())
    assert 0 < inside <= len(run)
    assert set(made.off_delegate) <= {d["op_name"] for d in run}


def test_the_command_writes_both_forms(place, capsys):
    assert called("card", place / "B", "--images", place / "val", "--licence", "a | b <x>") == 0
    assert capsys.readouterr().out.splitlines() == [str(place / "B.card.md"), str(place / "B.card.json")]
    told, text = card.read(place / "B.card.json"), (place / "B.card.md").read_text()
    assert told.schema_version == card.SCHEMA_VERSION
    assert told.speed is None
    assert "| licence of the weights | a \\| b &lt;x> |" in text
    figure = told.accuracy.figures[0]
    assert f"| {figure.integer:.2f} ({figure.low:.1f} to {figure.high:.1f}) |" in text
    assert "qhyvit card BUNDLE --bench 5" in text
    assert "On 30 images of val" in text
    heads = [line for line in text.splitlines() if line.startswith("| ---")]
    assert len(heads) == 3
    for i, line in enumerate(text.splitlines()):
        if line.startswith("| ---"):
            assert text.splitlines()[i - 1].count(" | ") == line.count(" | ")


def test_a_card_of_wrong_types_is_none(place, tmp_path):
    """Each value of another type, the other values as they were."""
    assert called("card", place / "B", "--images", place / "val", "--out", tmp_path / "c") == 0
    good = json.loads((tmp_path / "c.json").read_text())
    for where in ({}, good["accuracy"], good["accuracy"]["figures"][0]):
        for name, value in list((where or good).items()):
            kept = where or good
            kept[name] = {"x": [1]} if not isinstance(value, dict) else [1]
            (tmp_path / "c.json").write_text(json.dumps(good))
            with pytest.raises(InputError, match="make it again"):
                card.read(tmp_path / "c.json")
            kept[name] = value
    (tmp_path / "c.json").write_text(json.dumps(good))
    assert card.read(tmp_path / "c.json").bundle == "B"


def test_a_card_says_what_it_is_of(place, made):
    """Digests by other means, and the target with its proof."""
    text = (place / "B" / "manifest.json").read_bytes()
    assert made.bundle_sha256 == hashlib.sha256(text).hexdigest()
    assert made.proven == {"litert": json.loads(text)["created_by"]["target"]["proof"]}
    assert made.verified_share == json.loads(text)["created_by"]["against_float"]["alike"]["share"]


@pytest.mark.parametrize("change", ["picture", "name", "label"])
def test_other_images_have_another_digest(place, tmp_path, change):
    shutil.copytree(place / "val", tmp_path / "val")
    before = card.images_digest(place / "val", None)
    assert card.images_digest(tmp_path / "val", None) == before
    if change == "picture":
        shutil.copy(tmp_path / "val" / "1.png", tmp_path / "val" / "0.png")
    elif change == "name":
        (tmp_path / "val" / "0.png").rename(tmp_path / "val" / "zero.png")
    else:
        labels = tmp_path / "val" / "labels.csv"
        labels.write_text(labels.read_text().replace("0.png,0", "0.png,1"))
    assert card.images_digest(tmp_path / "val", None) != before
    assert card.images_digest(place / "val", None, (0, 1)) != before


def test_json_goes_to_stdout_alone(place, tmp_path, capsys):
    assert called("card", place / "B", "--out", tmp_path / "it", "--bench", 0.1, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(card.read(tmp_path / "it.json").to_json()))
    assert (told["accuracy"], told["licence"]) == (None, "not stated")
    text = (tmp_path / "it.md").read_text()
    assert "Not measured: `qhyvit card BUNDLE --images FOLDER`" in text
    assert f"| median of {told['speed']['runs']} inferences | {told['speed']['p50_ms']:.2f} ms |" in text


@pytest.mark.parametrize("task", ["embed", "segment", "regress", "multilabel"])
def test_a_bundle_of_any_task_has_a_card(tmp_path, task):
    made = card.make(card.CardRequest(make_bundle(tmp_path / task, task)))
    assert made.task == task
    assert made.run[3].startswith(f"qhyvit-device {card.READS[task]} {task} ")
    assert made.verified == ""  # such a bundle says nothing of its verification
    assert f"for the task {task}" in card.markdown(made)


def test_random_weights_are_said_first(tmp_path):
    bundle = make_bundle(tmp_path / "b", "classify")
    raw = json.loads((bundle / "manifest.json").read_text())
    raw["created_by"] = {"weights": "random"}
    (bundle / "manifest.json").write_text(json.dumps(raw))
    text = card.markdown(card.make(card.CardRequest(bundle)))
    first = text.splitlines()[2]
    assert first == "**The weights are random: this file shows size and time, and its answers mean nothing.**"


@pytest.mark.parametrize("content", [
    "", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 2}', '{"schema_version": 2, "bundle": 1}', "[" * 10**5,
])  # fmt: skip
def test_what_is_no_card_is_one_line(tmp_path, content):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(InputError, match="make it again"):
        card.read(tmp_path / "c.json")


def test_images_that_were_used_to_calibrate_are_refused(place, tmp_path, capsys):
    assert called("card", place / "B", "--images", place / "train", "--out", tmp_path / "c") == 2
    assert "were used to calibrate" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_interval_where_a_figure_is_no_share_of_images():
    figure = gather._figure("mIoU_percent", 50.0, 60.0, 10, share=False)
    assert (figure.low, figure.high, figure.floating_low) == (None, None, None)
    shares = gather._figure("top1_percent", 50.0, 60.0, 10, share=True)
    assert np.isfinite([shares.low, shares.high, shares.floating_low, shares.floating_high]).all()
