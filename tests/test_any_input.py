"""Inputs that are no squares of three channels: built, proven and classified from the command line."""

import base64
import contextlib
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import qhyvit
from qhyvit import cli, data
from qhyvit.errors import QhyvitError
from qhyvit.models.shared.input_facts import Pixels
from qhyvit.models.shared.source import open_source
from qhyvit.models.shared.submodules import equivalents_in
from qhyvit.report.images import THUMBNAIL, thumbnail
from qhyvit_device import cli as device
from qhyvit_device.arrays import MOST_SIDE
from qhyvit_device.preprocess import Preprocess
from qhyvit_device.runner import Model

NETS = '''
import torch
from torch import nn

class Net(nn.Module):
    """A stem, one block of attention, and a head for five classes."""

    def __init__(self, channels, stride, **said):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(channels, 8, stride, stride), nn.LayerNorm(8)
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 5)
        if said:
            self.preprocess = said

    def forward(self, x):
        y = torch.relu(self.stem(x)).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(y)).chunk(3, -1)
        return 10 * self.head((y + (q @ k.transpose(1, 2)).softmax(-1) @ v).mean(1))

def tall(): return Net(3, 16)
def gray(): return Net(1, 8, input_size=(1, 48, 32), mean=127.5, std=127.5)
def five(): return Net(5, 8, input_size=(32, 48))
'''
COUNT = 8
SHAPES = {"tall": (256, 128, 3), "gray": (48, 32, 1), "five": (32, 48, 5)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("any_input")
    (folder / "nets.py").write_text(NETS)
    for name in ("pictures", "arrays"):
        (folder / name).mkdir()
    for i in range(COUNT):
        rng = np.random.default_rng(i)
        pixels = np.kron(rng.random((6, 4, 3)), np.ones((12, 10, 1)))
        Image.fromarray((255 * pixels).astype(np.uint8)).save(folder / "pictures" / f"{i}.png")
        values = rng.standard_normal((32, 48, 5)) + rng.standard_normal(5)
        np.save(folder / "arrays" / f"{i}.npy", values.astype(np.float32))
    (folder / "arrays" / "labels.csv").write_text(
        "file,class_index\n" + "".join(f"{i}.npy,{i % 5}\n" for i in range(COUNT))
    )
    return folder


def run(capfd, program, *args):
    """Exit code, stdout and the lines of stderr."""
    try:
        code = program([str(a) for a in args])
    except SystemExit as ended:
        code = ended.code
    out, err = capfd.readouterr()
    return code, out, err.splitlines()


@pytest.fixture(scope="module")
def bundles(place):
    """All three, as the command line builds them; with what was said meanwhile."""
    flags = {"tall": ("--input-size", "256x128", "--mean", "0.5", "--std", "0.25,0.25,0.5"), "gray": (), "five": ()}
    found = {}
    for name, more in flags.items():
        images, out = place / ("arrays" if name == "five" else "pictures"), place / name
        given = ("--images", images, "--out", out, "--count", "4", "--method", "minmax", *more)
        said = io.StringIO()
        with (
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(io.StringIO()),
            pytest.raises(SystemExit) as ended,
        ):
            cli.main(["build", "--model-py", f"{place / 'nets.py'}:{name}", *map(str, given)])
        assert ended.value.code == 0, said.getvalue()
        found[name] = said.getvalue()
    return found


def module_of(place, name):
    scope = {}
    exec(NETS, scope)
    return scope[name]().eval()


def given_of(place, name, i):
    """The file of an input, and what the network is to take of it, by Pillow and numpy alone."""
    if name == "five":
        path = place / "arrays" / f"{i}.npy"
        return path, np.load(path)
    path = place / "pictures" / f"{i}.png"
    image = (
        Image.open(path).convert("L" if name == "gray" else "RGB").resize(SHAPES[name][1::-1], Image.Resampling.BICUBIC)
    )
    mean, std = {"tall": (0.5, np.array([0.25, 0.25, 0.5])), "gray": (0.5, 0.5)}[name]
    return path, ((np.asarray(image).reshape(SHAPES[name]) / 255 - mean) / std).astype(np.float32)


@pytest.mark.parametrize("name", SHAPES)
def test_each_is_built_and_proven(place, bundles, name):
    verdict = json.loads((place / f"{name}.work" / "verify.json").read_text())
    assert verdict["passed"]
    assert {c["name"] for c in verdict["checks"]} >= {"exported file computes the model", "integer decides as float"}
    model = Model.load(place / name)
    assert model.manifest.input.shape == SHAPES[name]
    assert tuple(model.file.input["shape"]) == (1, *SHAPES[name])
    assert len(model.manifest.preprocess.mean) == SHAPES[name][2]


@pytest.mark.parametrize("name", SHAPES)
def test_the_device_stage_classifies_as_the_module_does(place, bundles, name, capfd):
    net, paths, expected, model = module_of(place, name), [], [], Model.load(place / name)
    grid = model.manifest.input
    for i in range(COUNT):
        path, x = given_of(place, name, i)
        paths.append(path)
        codes = np.clip(np.rint(x / grid.scale) + grid.zero_point, -128, 127)
        assert np.abs(model.prepare(path, "squash") - codes).max() <= 1  # float32 here, float64 there
        with torch.no_grad():
            expected.append(net(torch.from_numpy(x).permute(2, 0, 1)[None])[0].softmax(0).numpy())
    squash = ("--resize-mode", "squash") if name != "five" else ()
    code, out, lines = run(capfd, device.main, "classify", place / name, *paths, "--json", "--top", "5", *squash)
    assert code == 0, lines
    shares = [{p["index"]: p["probability"] for p in r["predictions"]} for r in json.loads(out)["results"]]
    found = np.log([[share[i] for i in range(5)] for share in shares])
    assert np.corrcoef(found.ravel(), np.log(expected).ravel())[0, 1] > 0.97
    assert run(capfd, device.main, "info", place / name, "--json")[0] == 0


def test_a_slip_of_255_is_said(bundles):
    assert "mean (127.5) and std (127.5) are those of values in 0..255: a 255th is taken" in bundles["gray"]
    assert "five says no mean: (0, 0, 0, 0, 0) is taken" in bundles["five"]
    assert "255" not in bundles["tall"]


def test_five_channels_are_evaluated_and_reported(place, bundles, capfd):
    code, out, lines = run(capfd, cli.main, "evaluate", place / "five", "--images", place / "arrays", "--json",
                           "--allow-calibration-images")  # fmt: skip
    assert code == 0, lines
    found = json.loads(out)
    assert found["images"] == COUNT
    assert found["alike"]["figures"]["agree"] >= COUNT - 1
    code, _, lines = run(capfd, cli.main, "report", place / "five", "--out", place / "report.html", "--images",
                         place / "arrays")  # fmt: skip
    assert code == 0, lines
    assert f"{COUNT} images of" in (place / "report.html").read_text()


@pytest.mark.parametrize(
    "array", [np.zeros((9, 7, 5), np.uint8), np.ones((9, 7, 3), np.float32) * 2, np.eye(7)[..., None]]
)
def test_what_is_no_picture_has_a_thumbnail(array):
    image = Image.open(io.BytesIO(base64.b64decode(thumbnail(array))))
    assert max(image.size) == THUMBNAIL
    assert image.size[0] / image.size[1] == pytest.approx(array.shape[1] / array.shape[0], rel=0.03)
    pixels = np.asarray(image.convert("RGB"), np.int16)
    assert np.ptp(pixels, axis=2).max() <= 2  # gray
    block = pixels.shape[0] // array.shape[0]
    places = np.arange(array.shape[0]) * block + block // 2
    shades = pixels[np.ix_(places, places[: array.shape[1]])][..., 0]
    means = array.mean(axis=2)
    if np.ptp(means):
        assert shades[means == means.max()].min() > shades[means == means.min()].max() + 60


def test_what_does_not_fit_is_one_line(place, bundles, capfd, tmp_path):
    for shape, words in (((5, 32, 48), "channels come last"), ((32, 48, 4), "the model takes [32, 48, 5]")):
        np.save(tmp_path / "x.npy", np.zeros(shape, np.float32))
        code, out, lines = run(capfd, device.main, "classify", place / "five", tmp_path / "x.npy")
        assert (code, out) == (2, "")
        assert [words in line for line in lines if line.startswith("qhyvit-device")] == [True]
    code, _, lines = run(capfd, device.main, "classify", place / "five", place / "pictures" / "0.png")
    assert code == 2
    assert "a picture cannot be the input of 5 channels" in lines[-1]


@pytest.mark.parametrize(("name", "images", "words"), [
    ("five", "pictures", "a picture cannot be the input of 5 channels; give arrays"),
    ("tall", "arrays", "an array of [32, 48, 5], the model takes [256, 128, 3]"),
])  # fmt: skip
def test_calibration_data_of_another_kind_is_refused_before_the_conversion(
    place, name, images, words, tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr("qhyvit.models.shared.export.convert", None)
    size = ("--input-size", "256x128") if name == "tall" else ()
    code, _, lines = run(capfd, cli.main, "build", f"{place / 'nets.py'}:{name}", "--images", place / images, "--out",
                         tmp_path / "o", *size)  # fmt: skip
    assert code == 2
    assert words in lines[-1]
    assert not (tmp_path / "o").exists()


def test_arrays_of_two_shapes_are_refused_before_the_export(place, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("qhyvit.models.shared.source.open_source", None)
    for i, shape in enumerate([(32, 48, 5), (48, 32, 5)]):
        np.save(tmp_path / f"{i}.npy", np.zeros(shape, np.float32))
    code, _, lines = run(
        capfd, cli.main, "build", f"{place / 'nets.py'}:five", "--images", tmp_path, "--out", tmp_path / "o"
    )
    assert code == 2
    assert "arrays have one shape, that of the input" in lines[-1]


def test_an_iterable_of_arrays_is_as_good_as_a_folder_of_them(place, bundles, tmp_path):
    """The same arrays give the same plan; a generator that never ends is ended."""

    def endless():
        while True:
            yield from (np.load(p) for p in sorted((place / "arrays").glob("*.npy")))

    net = module_of(place, "five")
    lines = []
    built = qhyvit.build(net, endless(), tmp_path / "b", count=4, method="minmax", log=lines.append)
    assert built.verdict["passed"]
    folder = qhyvit.stages.plan_of(qhyvit.work.Work(place / "five.work"))
    assert built.plan.image_hashes == folder.image_hashes
    assert built.plan.tensors.keys() == folder.tensors.keys()
    config = Model.load(tmp_path / "b").manifest.created_by["config"]
    assert config["data"]["images"] == "arrays"
    array = np.load(place / "arrays" / "3.npy")
    assert Model.load(place / "five").classify(array) == Model.load(place / "five").classify(place / "arrays" / "3.npy")


@pytest.mark.parametrize(("images", "words"), [
    ([], "an iterable of none"), ([np.zeros((4, 4, 3), np.int64)], "item 1 of the images: an array of int64"),
    ([np.zeros((4, 4, 3), np.float32), "x.png"], "item 2 of the images: an array of <U5"),
    ([(np.zeros((4, 4, 3), np.float32), 1)], "item 1 of the images is a tuple; give arrays"),
    ([np.full((4, 4, 3), np.inf)], "item 1 of the images: an array with values that are not finite"),
    ([torch.zeros(2, 4, 4, 3)], "item 1 of the images: an array of [2, 4, 4, 3]"), (3, "got a int"),
    ([np.zeros((1, MOST_SIDE + 1, 3), np.uint8)], "item 1 of the images: an array of"),
])  # fmt: skip
def test_an_iterable_of_something_else_is_one_line(images, words, tmp_path):
    for call in (
        lambda: qhyvit.build(nn.Linear(2, 2), images, tmp_path / "o"),
        lambda: qhyvit.calibrate(nn.Linear(2, 2), images),
    ):
        with pytest.raises(QhyvitError) as caught:
            call()
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_bytes_and_floats_in_one_folder_are_each_what_they_are(tmp_path):
    how = Preprocess("crop", 4, "bilinear", (0.5,) * 5, (0.25,) * 5)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 5), dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    paths = [tmp_path / "a.npy"]
    assert data.load_pixels(paths, (4, 4, 5), how).dtype == np.uint8
    np.save(tmp_path / "b.npy", np.full((4, 4, 5), 3.5))
    found = data.load_pixels([*paths, tmp_path / "b.npy"], (4, 4, 5), how)
    assert np.allclose(found[0], (pixels / 255 - 0.5) / 0.25, atol=1e-6)
    assert (found[1] == 3.5).all()


def test_floats_that_look_like_pixels_are_said(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 1))
    values = pixels.astype(np.float32)
    for floats, lines in ((values, 1), (values / 255, 0), (3 * values, 0), (-values, 0), (np.ones_like(values), 0)):
        said = []
        for i, array in enumerate(floats):
            np.save(tmp_path / f"{i}.npy", array)
        data.load_pixels(
            [*tmp_path.iterdir()], (4, 4, 1), Preprocess("crop", 4, "bilinear", (0.0,), (1.0,)), said.append
        )
        assert ["whole numbers up to 255" in line for line in said] == [True] * lines


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_a_named_model_takes_a_rectangle_and_blue_first(order):
    """A zoo's network keeps its family's form, and takes red first."""
    pixels = Pixels((0.1, 0.2, 0.3), None, order)
    source = open_source("mobilevitv2_050", None, 7, (64, 128), random_weights=True, pixels=pixels)
    assert source.shape == (64, 128, 3)
    assert source.preprocess["mean"] == ((0.1, 0.2, 0.3) if order == "RGB" else (0.3, 0.2, 0.1))
    assert source.preprocess["resize"] == 72
    made = source.rewrite(source.reference, source.shape)
    assert equivalents_in(made) == {"": "Backbone"}
    x = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(5))
    net = source.reference.net if order == "BGR" else source.reference
    with torch.no_grad():
        expected, found = net(x.flip(1) if order == "BGR" else x), made(x.permute(0, 2, 3, 1))
    assert float((found - expected).abs().max()) < 2e-4 * float(expected.abs().max())
