"""Bundles for the tests of the device stage: of an embedded network, tiny ones of every task, and signed ones."""

import numpy as np
import pytest
from PIL import Image

from qhyvit_device.preprocess import Preprocess
from tests._bundles import NAMES, make_bundle, picture, saved


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, small_v1, inputs):
    from qhyvit.bundle import write_bundle
    from qhyvit.lowering.lower import quantized_file
    from qhyvit.methods import method
    from qhyvit.methods.shared.problem import Problem
    from qhyvit.plan import QuantPlan

    folder = tmp_path_factory.mktemp("bundle")
    solution = method("minmax").search(Problem(small_v1.graph, inputs[:4]), {"observer": "minmax"})
    model = quantized_file(solution.shipped, QuantPlan(solution.tensors, "minmax"))
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "test.png")
    facts = {"model": "m", "profile": "integer", "versions": {}, "created_by": {}}
    labels = [f"shape {i}" for i in range(10)]
    how = Preprocess("crop", 144, "bicubic")
    write_bundle(folder / "b", model, how, folder / "test.png", labels, facts)
    return folder / "b"


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return {name: make_bundle(folder / name, name) for name in NAMES}


@pytest.fixture
def photo(tmp_path):
    """Half red, a quarter blue, a quarter white: means .75, .25, .5."""
    return saved(picture(["rr", "bW"], 64), tmp_path / "photo.png")


@pytest.fixture
def gallery(tmp_path):
    for name, rows in (("anna/1", "r"), ("anna/2", "W"), ("bob/1", "g"), ("eve/1", "b"), ("eve/.hidden", "r")):
        path = tmp_path / "gallery" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        saved(picture([rows]), path)
    return tmp_path / "gallery"


@pytest.fixture
def maker(tmp_path):
    from tests._signed import Maker

    return Maker(tmp_path)


@pytest.fixture
def signed(tmp_path, maker):
    return maker.sign(make_bundle(tmp_path / "signed", "classify"))


@pytest.fixture
def unsigned(tmp_path):
    return make_bundle(tmp_path / "unsigned", "classify")


@pytest.fixture
def asked(maker, monkeypatch):
    """This machine asks for the maker's signature."""
    monkeypatch.setenv("QHYVIT_PUBLIC_KEY", str(maker.public))
