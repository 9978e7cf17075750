"""What holds for every kind of model file: the axes of the image, names and settings, builds."""

import json

import pytest

import qhyvit
from qhyvit import cli, files
from qhyvit.config import BuildConfig, ModelConfig
from qhyvit.errors import ExportError, InputError, UsageError
from qhyvit.models.importers import all_importers
from qhyvit.models.shared.importer import image_shape
from qhyvit.models.shared.source import open_source
from qhyvit.stages import export as export_stage
from qhyvit.work import FACTS, FLOAT, Work
from tests._model_files import channels_first, channels_last, written
from tests._tiny import pictures


@pytest.mark.parametrize(("dims", "last", "found"), [
    ([1, 96, 64, 3], True, ((96, 64, 3), True)), ([1, 3, 96, 64], True, ((96, 64, 3), False)),
    ([None, 3, 16, 16], True, ((16, 16, 3), False)), ([1, 16, 16, 3], False, ((16, 16, 3), True)),
    ([1, 4, 4, 4], True, ((4, 4, 4), True)), ([1, 4, 4, 4], False, ((4, 4, 4), False)),
    ([1, None, None, 1], False, ((32, 48, 1), True)), ([1, 3, None, None], True, ((32, 48, 3), False)),
])  # fmt: skip
def test_channels_are_where_there_are_fewest(dims, last, found):
    assert image_shape("net", "x", dims, (32, 48) if None in dims[1:] else None, last=last) == found


@pytest.mark.parametrize(("dims", "words"), [
    ([1, 224, 224], "an image is"), ([1, 64, 64, 64], "1 to 16 channels"), ([], "an image is"),
])  # fmt: skip
def test_what_is_no_image_is_refused(dims, words):
    with pytest.raises(ExportError, match=words):
        image_shape("net", "x", dims, None, last=True)


def test_the_list_of_endings_is_that_of_the_shelf():
    assert sorted(files.MODEL_FILES) == sorted(f".{name}" for name in all_importers())


def test_a_file_has_its_weights_inside_and_has_to_be_there(tmp_path):
    path = written(tmp_path / "net.tflite", channels_last())
    for options in ({"weights": path}, {"random_weights": True}):
        with pytest.raises(UsageError, match="has its weights inside"):
            open_source(str(path), **options)
    with pytest.raises(UsageError, match=r"9 classes asked for, but net\.tflite gives 6"):
        open_source(str(path), classes=9)
    with pytest.raises(InputError, match=r"none\.onnx does not exist"):
        open_source(str(tmp_path / "none.onnx"))


def test_an_export_is_made_again_when_the_file_changed(tmp_path):
    path, work = written(tmp_path / "net.tflite", channels_last()), Work(tmp_path / "work")
    export_stage(work, ModelConfig(str(path)))
    first = work.read(FLOAT)
    assert work.json(FACTS)["weights_sha256"] == files.sha256(path.read_bytes())
    lines = []
    export_stage(Work(tmp_path / "work", log=lines.append), ModelConfig(str(path)))
    assert lines == ["export: unchanged, kept"]
    written(path, channels_last(seed=1))
    export_stage(work, ModelConfig(str(path)))
    assert work.read(FLOAT) != first


def test_a_file_in_a_toml_is_seen_from_there(tmp_path):
    (tmp_path / "build.toml").write_text('[model]\nname = "nets/a.onnx"\n[data]\nimages = "train"\n')
    config = BuildConfig.from_toml(tmp_path / "build.toml")
    assert config.model.name == str(tmp_path / "nets" / "a.onnx")


@pytest.mark.parametrize(("given", "words"), [
    (("--tflite", "a.onnx"), "--tflite takes a file that ends in .tflite, got 'a.onnx'"),
    (("--onnx", "a.onnx", "--pt2", "a.pt2"), "either a model's name or --model-py"),
    (("--pt2", "none.pt2", "--images", "train", "--out", "o"), "none.pt2 does not exist"),
])  # fmt: skip
def test_the_command_line_says_what_is_wrong(given, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "train", 1)
    with pytest.raises(SystemExit) as ended:
        cli.main(["build", *given])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in said
    assert "Traceback" not in said


def test_a_file_is_built_and_proven_from_the_command_line_and_from_python(tmp_path, capsys):
    images, path = tmp_path / "train", written(tmp_path / "net.tflite", channels_first())
    pictures(images, 12)
    given = ["--count", "4", "--method", "minmax", "--min-agreement", "0.1", "--images", images]
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, ("build", "--tflite", path, *given, "--out", tmp_path / "a", "--json"))])
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    assert json.loads(out)["passed"]
    built = qhyvit.build(path, images, tmp_path / "b", count=4, method="minmax", min_agreement=0.1)
    assert built.verdict["passed"]
    assert (tmp_path / "a" / "model.tflite").read_bytes() == (tmp_path / "b" / "model.tflite").read_bytes()
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["model"] == "net.tflite"
