"""The command line as a user meets it: one build from end to end, and every kind of bad input."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch

from benchmarks.demo.images import generate
from tests._commands import ran

MODEL = ("mobilevitv2_050", "--classes", "10", "--input-size", "64")
FAST = ("--count", "6", "--method", "qhyvit", "--set", "rounds=1", "--set", "learn=0")


def qhyvit(*args, module=None, **kwargs):
    """A command of the host in this process, one of ``module`` in a process of its own."""
    if module is None:
        return ran(*args)
    command = [sys.executable, "-m", module, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    generate(folder / "train", 3, seed=11)
    generate(folder / "val", 2, seed=12)
    return folder


@pytest.fixture(scope="module")
def weights(place):
    from qhyvit.models import find_variant
    from qhyvit.models.shared.weights import randomize

    family, variant = find_variant("mobilevitv2_050")
    module = family.build(variant, 10)
    randomize(module, 3)
    path = place / "w.safetensors"
    safetensors.torch.save_file({k: v.contiguous() for k, v in module.state_dict().items()}, str(path))
    return path


@pytest.fixture(scope="module")
def work(place, weights):
    """A work directory with an integer model; random weights may fail the check of decisions, so no bundle yet."""
    folder = place / "work"
    for stage in (
        ("export", *MODEL, "--weights", weights, "--work", folder),
        ("calibrate", "--work", folder, "--images", place / "train", *FAST),
        ("convert", "--work", folder),
    ):
        done = qhyvit(*stage, module="qhyvit")
        assert done.returncode == 0, done.stderr
    qhyvit("verify", "--work", folder, "--images", place / "val", "--count", "5")
    return folder


@pytest.fixture(scope="module")
def bundle(place, work):
    done = qhyvit("bundle", "--work", work, "--images", place / "train", "--out", place / "B")
    assert done.returncode == 0, done.stderr
    return place / "B"


def test_a_bundle_classifies_and_passes_its_self_test(bundle, place):
    image = next((place / "val").rglob("*.jpg"))
    done = qhyvit("classify", bundle, image, "--top", "2", "--json", module="qhyvit_device")
    assert done.returncode == 0, done.stderr
    predictions = json.loads(done.stdout)["results"][0]["predictions"]
    assert len(predictions) == 2
    assert predictions[0]["probability"] >= predictions[1]["probability"]
    info = json.loads(qhyvit("info", bundle, "--json", module="qhyvit_device").stdout)
    assert info["self_test"]["equal_codes"] == 1.0


def test_the_file_runs_in_a_process_that_cannot_import_torch(bundle, place):
    blocked = place / "blocked"
    for name in ("torch", "timm", "tensorflow", "litert_torch", "qhyvit"):
        (blocked / name).mkdir(parents=True, exist_ok=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('blocked')\n")
    env = {**os.environ, "PYTHONPATH": str(blocked)}
    done = qhyvit("info", bundle, module="qhyvit_device", env=env)
    assert done.returncode == 0, done.stderr


def test_evaluate_counts_float_and_integer(bundle, place, work):
    done = qhyvit("evaluate", bundle, "--images", place / "val", "--float", work / "float.tflite", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["task"], found["images"]) == ("classify", 20)
    assert set(found["integer"]) == set(found["float"]) == {"top1_percent", "top5_percent"}
    assert 0 <= found["alike"]["figures"]["agree"] <= 20
    assert found["paired"]["test"] == "McNemar"


def test_evaluate_in_parts_gives_the_same_counts(bundle, place, work):
    command = ("evaluate", bundle, "--images", place / "val", "--float", work / "float.tflite", "--json")
    whole, parts = qhyvit(*command), qhyvit(*command, "--workers", "2")
    assert parts.returncode == 0, parts.stderr
    assert json.loads(parts.stdout)["images"] > 16  # two parts
    assert json.loads(parts.stdout) == json.loads(whole.stdout)
    assert not list(bundle.parent.glob(".*.parts.*"))


@pytest.mark.slow
def test_report_and_compare_from_the_command_line(bundle, place, work):
    page = place / "page.html"
    done = qhyvit("report", bundle, "--work", work, "--images", place / "val", "--count", "4", "--out", page)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(page)
    assert "Every tensor" in page.read_text()
    bad = qhyvit("report", bundle, "--bench", place / "w.safetensors")
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr
    found = json.loads(qhyvit("compare", work, work / "plan.json", "--json").stdout)
    assert found["different"] == []
    assert found["equal"] > 100
    assert "tensors differ" in qhyvit("compare", work, work / "plan.json").stdout


def test_evaluate_asks_about_squares(bundle, place):
    plain = qhyvit("evaluate", bundle, "--images", place / "val")
    assert "--resize-mode squash" in plain.stderr
    told = qhyvit("evaluate", bundle, "--images", place / "val", "--resize-mode", "squash")
    assert "--resize-mode" not in told.stderr


def test_evaluating_on_calibration_images_is_refused(bundle, place):
    done = qhyvit("evaluate", bundle, "--images", place / "train")
    assert done.returncode == 2
    assert "used to calibrate" in done.stderr


@pytest.mark.parametrize("hashes", [5, [["x"]]])
@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_a_bundle_that_names_its_calibration_images_oddly_is_one_line(bundle, place, work, tmp_path, command, hashes):
    shutil.copytree(bundle, tmp_path / "b")
    raw = json.loads((tmp_path / "b" / "manifest.json").read_text())
    raw["created_by"]["calibration_image_hashes"] = hashes
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(raw))
    done = qhyvit(command, tmp_path / "b", "--images", place / "val", "--float", work / "float.tflite")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("calibration_image_hashes is no list of texts")


def test_a_second_run_keeps_what_is_done(work, place):
    done = qhyvit("calibrate", "--work", work, "--images", place / "train", *FAST)
    assert done.returncode == 0
    assert "unchanged" in done.stderr


def test_inspect_shows_census_plan_and_graph(work):
    census = json.loads(qhyvit("inspect", work, "--json").stdout)
    assert census["float_tensors"] == []
    assert "bridge stages." in qhyvit("inspect", work, "--tensors").stdout
    assert "SOFTMAX" in qhyvit("inspect", work, "--graph").stdout


def test_models_lists_all_with_the_papers_bridge_blocks():
    found = json.loads(qhyvit("models", "--json").stdout)["models"]
    assert len(found) == 24
    counts = {m["family"]: m["bridge_blocks"] for m in found}
    assert counts == {
        "mobilevit": 3, "mobilevitv2": 3, "efficientformer": 1, "efficientformerv2": 2, "mobile_former": 15,
    }  # fmt: skip


COMMANDS = ["build", "export", "calibrate", "convert", "verify", "bundle", "evaluate", "inspect", "sweep", "wheelhouse",
            "bench", "bundle-image", "bundle-tarball", "report", "compare"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    done = qhyvit(command, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout


def refused(place, *args):
    """One clear line, exit code 2, no traceback, no bundle."""
    out = place / "refused"
    done = qhyvit("build", *args, "--out", out)
    lines = [line for line in done.stderr.splitlines() if line.startswith("qhyvit: error: ")]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    assert not out.exists()
    return lines[0]


def test_missing_weights(place):
    line = refused(place, *MODEL, "--weights", place / "none.safetensors", "--images", place / "train")
    assert "none.safetensors" in line


def test_weights_of_another_model_and_class_count(place, weights):
    images = ("--images", place / "train")
    line = refused(place, "mobilevitv2_075", "--classes", "10", "--weights", weights, *images)
    assert "do not belong to mobilevitv2_075" in line
    line = refused(place, "mobilevitv2_050", "--weights", weights, *images)
    assert "--classes 10" in line


@pytest.mark.parametrize(("wrong", "word"), [
    (("--method", "qhvit"), "unknown method 'qhvit'"),
    (("--set", "ronds=2"), "has no option 'ronds'"),
    (("--target", "gpu"), "unknown target 'gpu'"),
    (("--profile", "cpu"), "--profile is no option any more: integer is the default, cpu is --no-integer"),
    (("--no-int16",), "--no-int16 is no option any more: for runtimes of 2.14 use --target litert-2.14"),
    (("--latency-profile", "cortex-a72"), "use --target, with the JSON file, or a board's name"),
    (("--target", "tflm", "--no-integer"), "target tflm computes no float"),
    (("--no-integer", "--bits", "6"), "needs --integer"),
    (("--labels", "none.txt"), "cannot read label names none.txt"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_before_the_export(place, wrong, word):
    assert word in refused(place, *MODEL, *wrong, "--images", place / "train")
    assert not (place / "refused.work").exists()


def test_what_is_no_weights_file_gets_no_advice_to_run_it(place):
    (place / "names.txt").write_text("a\nb\n")
    line = refused(place, *MODEL, "--weights", place / "names.txt", "--images", place / "train")
    assert "no weights file" in line
    assert "weights_only" not in line


def test_a_model_is_named_once(place):
    images = ("--images", place / "train")
    assert "either a model's name or --model-py" in refused(place, *images)
    assert "either a model's name or --model-py" in refused(place, "mobilevitv2_050", "--model-py", "a.py:f", *images)
    assert "FILE.py:FUNCTION" in refused(place, "--model-py", "a.py", *images)
    assert "a.py does not exist" in refused(place, "--model-py", "a.py:make", *images)


def test_truncated_weights(place, weights):
    short = place / "short.safetensors"
    short.write_bytes(weights.read_bytes()[:5000])
    assert "truncated" in refused(place, *MODEL, "--weights", short, "--images", place / "train")


def test_empty_and_missing_image_folders(place, weights):
    empty = place / "empty"
    empty.mkdir(exist_ok=True)
    assert "holds no images" in refused(place, *MODEL, "--weights", weights, "--images", empty)
    assert "does not exist" in refused(place, *MODEL, "--weights", weights, "--images", place / "nowhere")


def test_a_text_file_named_jpg(place, work):
    bad = place / "bad"
    bad.mkdir(exist_ok=True)
    (bad / "notes.jpg").write_text("no picture")
    done = qhyvit("calibrate", "--work", work, "--images", bad)
    assert done.returncode == 2
    assert "notes.jpg: not an image" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_truncated_model(bundle, place, work):
    for file in (work / "model.tflite", work / "float.tflite"):
        short = place / "short.tflite"
        short.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        done = qhyvit("inspect", short)
        assert done.returncode == 2
        assert "truncated" in done.stderr
    damaged = place / "damaged"
    damaged.mkdir(exist_ok=True)
    for file in bundle.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "model.tflite").write_bytes((bundle / "model.tflite").read_bytes()[:9000])
    done = qhyvit("info", damaged, module="qhyvit_device")
    assert done.returncode == 2
    assert "checksum differs" in done.stderr


def test_an_output_that_is_in_the_way_or_not_writable(place, bundle, weights):
    done = qhyvit("build", *MODEL, "--weights", weights, "--images", place / "train", "--out", bundle)
    assert done.returncode == 2
    assert "--force" in done.stderr
    (place / "file").write_text("x")
    done = qhyvit("build", *MODEL, "--images", place / "train", "--out", place / "file" / "B")
    assert done.returncode == 2
    assert "not a writable folder" in done.stderr


def test_unknown_names_say_what_there_is(place):
    assert "known: efficientformer_l1" in refused(place, "resnet50", "--images", place / "train")
    done = qhyvit("evaluate", Path("nowhere"), "--images", place / "val")
    assert done.returncode == 2
    assert "is this a bundle folder" in done.stderr
