"""Mutated bundles, models and images: always one clear error or the right answer; ``make fuzz`` tries many more."""

import io
import json
import os
import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from qhyvit_device import flat, manifest, runner
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.manifest import Input, Manifest, Output, SelfTest
from qhyvit_device.preprocess import Preprocess, load_image, to_pixels

CASES = int(os.environ.get("QHYVIT_FUZZ", "150"))
MANY = settings(max_examples=CASES, deadline=2000, suppress_health_check=list(HealthCheck))
WORDS = (b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff\xff\xff\xff", b"\0\0\0\0")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")


def outcome(call, *args):
    """(what it gives, None), or (None, its one-line error); any other exception is a failure."""
    try:
        return call(*args), None
    except DeviceError as error:
        return None, str(error)


class Mutant(bytes):
    """Hypothesis keeps the text of what it drew: 22 GB after thousands of models of 200 kB."""

    def __repr__(self):
        return f"<{len(self)} bytes, crc {zlib.crc32(self):08x}>"


@st.composite
def mutated(draw, originals):
    """One of ``originals`` with bytes changed, cut off, doubled or put in."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(("flip", "set", "cut", "insert", "word")))
        if kind == "cut":
            del data[at : at + draw(st.integers(1, max(len(data), 1)))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=40))
        elif kind == "word":
            data[at : at + 4] = draw(
                st.sampled_from((b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff\xff\xff\xff", b"\0" * 4))
            )
        elif data:
            data[at] = draw(st.integers(0, 255)) if kind == "set" else data[at] ^ (1 << draw(st.integers(0, 7)))
    return Mutant(data)


@pytest.fixture(scope="module")
def models(small_v1):
    """The first ops of a network: of a whole one nearly all bytes are weights, and whatever they are is right."""
    from qhyvit.tflite.serialize import serialize

    def front(count):
        nodes = small_v1.graph.nodes[:count]
        return serialize(replace(small_v1.graph, nodes=nodes, outputs=nodes[-1].outputs))

    return [front(6), front(20)]


def images():
    found = []
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8))
    for kind in FORMATS:
        stream = io.BytesIO()
        picture.save(stream, kind)
        found.append(stream.getvalue())
    return found


IMAGES = images()


class _Interpreter:
    """Stands for the real one: says which bytes it was given."""

    seen: list[bytes] = []  # noqa: RUF012

    def __init__(self, model_content, num_threads):
        self.seen.append(model_content)

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [{"index": 0, "shape": np.array([1, 8, 8, 3]), "dtype": np.int8, "quantization": (0.01, -128)}]

    def get_output_details(self):
        return [{"index": 1, "shape": np.array([1, 3]), "dtype": np.int8, "quantization": (0.1, 0)}]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "model.tflite").write_bytes(models[1])
    (folder / "labels.txt").write_text("a\nb\nc\n")
    (folder / "test.png").write_bytes(IMAGES[0])
    names = ("model.tflite", "labels.txt", "test.png")
    good = Manifest(
        "m", "integer", Input(8, 8, "int8", 0.01, -128), Output(3, "int8", 0.1, 0), Preprocess("crop", 9, "bilinear"),
        SelfTest("test.png", (1, 2, 3), "x86_64", "litert 1"), {n: manifest.sha256(folder / n) for n in names},
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifest.dumps(good))
    return folder


@MANY
@given(data=st.data())
def test_a_mutated_bundle_is_refused_and_its_model_never_run(data, bundle):
    name = data.draw(st.sampled_from(("manifest.json", "model.tflite", "labels.txt", "test.png")))
    original = (bundle / name).read_bytes()
    # in place: a folder for each of ten thousand cases would take 77 GB
    (bundle / name).write_bytes(data.draw(mutated([original])))
    _Interpreter.seen.clear()
    runner_find, runner.find_interpreter = runner.find_interpreter, lambda: (_Interpreter, "stub", "1")
    try:
        _, error = outcome(runner.Model.load, bundle)
    finally:
        runner.find_interpreter = runner_find
        (bundle / name).write_bytes(original)
    assert error is None or "\n" not in error
    assert all(seen == (bundle / "model.tflite").read_bytes() for seen in _Interpreter.seen)


@MANY
@given(data=st.data())
def test_a_mutated_model_is_checked_without_a_crash(data, models):
    changed = data.draw(mutated(models))
    _, error = outcome(flat.check, changed, "fuzzed")
    assert error is None or error.startswith("fuzzed: ")


@MANY
@given(data=mutated(IMAGES))
def test_a_mutated_image_is_read_or_refused(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pillow has to say of broken files
        image, error = outcome(load_image, io.BytesIO(data))
        if image is None:
            assert "\n" not in error
        else:
            assert to_pixels(image, 8, 8, Preprocess("squash", 8, "bilinear")).shape == (8, 8, 3)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8,
)  # fmt: skip


@MANY
@given(data=st.data())
def test_a_manifest_with_anything_in_it_is_refused_or_whole(data, bundle):
    raw = json.loads((bundle / "manifest.json").read_text())
    place = raw
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(JSON)
        break
    found, error = outcome(manifest.from_dict, raw)
    assert error or isinstance(found, Manifest)


def test_a_tensor_that_claims_the_memory_of_the_machine_is_refused(models):
    from qhyvit.tflite import _flat

    model = _flat.load_model(models[1])
    model.subgraphs[0].tensors[0].shape = [1, 1 << 15, 1 << 15, 3]
    with pytest.raises(InputError, match="claims more than 256 million elements"):
        flat.check(_flat.pack(model), "huge")


def test_an_image_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / "bomb.png"
    Image.new("RGB", (40, 40)).save(path)
    with pytest.raises(InputError, match="too many pixels"):
        load_image(path)
