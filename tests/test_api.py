"""The Python interface: its names, and the examples of docs/api.md, which run here."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import qhyvit
from qhyvit_device.runner import Model

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
SIZE, CLASSES = 32, 4


class Net(nn.Module):
    """Two convolutions and a linear, [1, 3, H, W] -> [1, CLASSES]."""

    def __init__(self):
        super().__init__()
        self.preprocess = {"input_size": SIZE, "resize": SIZE}
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Calibration images, and labelled ones."""
    base, rng = tmp_path_factory.mktemp("api"), np.random.default_rng(0)
    for name, count in (("images", 40), ("labelled", 8)):
        (base / name).mkdir()
        for i in range(count):
            pixels = rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(base / name / f"{i}.png")
    lines = ["file,class_index", *(f"{i}.png,{i % CLASSES}" for i in range(8))]
    (base / "labelled" / "labels.csv").write_text("\n".join(lines) + "\n")
    return base


@pytest.fixture(scope="module")
def ran(folders):
    """What the names of the page's examples hold in the end."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    places = {"images": folders / "images", "labelled": folders / "labelled", "out": folders / "net-int8"}
    names = {"net": Net(), **places}
    exec(compile(code, PAGE.name, "exec"), names)
    return names


def test_the_examples_of_the_page_run(ran):
    assert ran["built"].verdict["passed"]
    assert ran["built"].plan.image_count == 32
    assert ran["found"].images == 8
    assert ran["plan"].method == "percentile"


def test_run_gives_what_the_file_gives(ran, folders):
    """The simulation's outputs are the codes of the interpreter, image by image."""
    model = Model.load(ran["out"])
    found = qhyvit.stages.solved(qhyvit.work.Work(ran["built"].work))
    entry = found.plan.tensors[found.shipped.tensors[found.shipped.inputs[0]].name]
    codes = np.random.default_rng(1).integers(-128, 128, (3, SIZE, SIZE, 3)).astype(np.int8)
    x = (codes.astype(np.float64) - entry.zero_point[0]) * entry.scale[0]
    logits = qhyvit.run(found.shipped, x, found.plan)
    assert np.allclose(logits, [model.run(c).dequantized()[0] for c in codes], rtol=1e-6)


def test_run_in_float_is_the_module(ran):
    x = np.random.default_rng(2).standard_normal((5, SIZE, SIZE, 3))
    with torch.no_grad():
        expected = Net()(torch.from_numpy(x).float().permute(0, 3, 1, 2)).numpy()
    assert np.abs(qhyvit.run(ran["graph"], x) - expected).max() < 1e-4


def test_the_users_module_is_left_as_it_is(ran):
    for name, value in Net().state_dict().items():
        assert torch.equal(value, ran["net"].state_dict()[name])


def test_another_weight_is_another_export(folders, tmp_path):
    """Two modules of one class are told apart by what they hold."""
    settings = {"method": "minmax", "count": 4, "work": tmp_path / "work"}
    other = Net()
    with torch.no_grad():
        other.head.weight.mul_(2)
    plans = [qhyvit.calibrate(m, folders / "images", **settings).plan for m in (Net(), other)]
    assert plans[0].model_sha256 != plans[1].model_sha256


def test_a_wrong_folder_is_one_line(tmp_path):
    with pytest.raises(qhyvit.QhyvitError, match="does not exist"):
        qhyvit.build(Net(), tmp_path / "nowhere", tmp_path / "out")


def test_public_names():
    assert set(qhyvit.__all__) <= set(dir(qhyvit))
    for name in qhyvit.__all__:
        assert getattr(qhyvit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        qhyvit.nonsense  # noqa: B018


def test_the_import_loads_no_torch():
    code = "import sys, qhyvit; qhyvit.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
