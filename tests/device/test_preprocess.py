"""Preprocessing: the integer table, timm's transform, and images that are none."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qhyvit_device.errors import InputError
from qhyvit_device.preprocess import (
    Preprocess,
    folder_preprocess,
    images_in,
    load_image,
    normalize,
    quantize,
    to_pixels,
)

PLAIN = Preprocess("crop", 72, "bicubic")
EVERY = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)  # [256, 3]


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.floats(0, 1)] * 3), st.tuples(*[st.floats(0.1, 2)] * 3),
    st.floats(1e-4, 0.1), st.integers(-128, 127),
)  # fmt: skip
def test_the_table_is_the_formula_for_all_values(mean, std, scale, zero_point):
    how = Preprocess("crop", 64, "bilinear", mean, std)
    expected = np.clip(np.rint((EVERY / 255.0 - mean) / std / scale) + zero_point, -128, 127)
    found = quantize(EVERY, how, scale, zero_point, "int8")
    assert found.dtype == np.int8
    assert np.array_equal(found, expected)


def test_normalize_is_value_minus_mean_over_std():
    how = Preprocess("crop", 64, "bilinear", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    expected = (EVERY / 255.0 - how.mean) / np.asarray(how.std)
    assert np.allclose(normalize(EVERY, how), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [(100, 80), (80, 100), (72, 72), (300, 71), (65, 65)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_crop_is_timms_evaluation_transform(size, interpolation):
    models = pytest.importorskip("qhyvit.models.shared.timm_models")
    models.import_timm()
    from torchvision import transforms

    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    mode = transforms.InterpolationMode(interpolation)
    theirs = transforms.Compose([transforms.Resize(72, interpolation=mode), transforms.CenterCrop(64)])(image)
    ours = to_pixels(image, 64, 64, Preprocess("crop", 72, interpolation))
    assert np.array_equal(ours, np.asarray(theirs))


def test_squash_takes_the_whole_image():
    image = Image.new("RGB", (50, 10))
    image.putpixel((49, 9), (255, 255, 255))
    pixels = to_pixels(image, 10, 10, Preprocess("squash", 10, "nearest"))
    assert pixels.shape == (10, 10, 3)
    same = to_pixels(image, 10, 50, Preprocess("squash", 10, "bicubic"))
    assert np.array_equal(same, np.asarray(image))


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert load_image(tmp_path / "a.jpg").size == (10, 20)


def test_files_that_are_no_images_are_named(tmp_path):
    text = tmp_path / "notes.jpg"
    text.write_text("hello")
    with pytest.raises(InputError, match=r"notes\.jpg: not an image"):
        load_image(text)
    with pytest.raises(InputError, match=r"none\.jpg"):
        load_image(tmp_path / "none.jpg")
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)).save(buffer, "JPEG")
    short = tmp_path / "short.jpg"
    short.write_bytes(buffer.getvalue()[:900])
    with pytest.raises(InputError, match=r"short\.jpg: cannot read"):
        load_image(short)


def test_metadata_beside_the_images_overrides(tmp_path):
    assert folder_preprocess(tmp_path, PLAIN) == PLAIN
    path = tmp_path / "preprocess.json"
    path.write_text(json.dumps({"mode": "squash"}))
    assert folder_preprocess(tmp_path, PLAIN).mode == "squash"
    for bad in ('{"mean": 1}', "[]", "{", '{"mode": "fold"}', '{"resize": "big"}'):
        path.write_text(bad)
        with pytest.raises(InputError):
            folder_preprocess(tmp_path, PLAIN)


def test_images_are_found_sorted_and_empty_folders_refused(tmp_path):
    with pytest.raises(InputError, match="holds no images"):
        images_in(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        images_in(tmp_path / "none")
    for name in ("b.png", "a.JPG", "c.txt"):
        (tmp_path / name).write_text("x")
    assert [p.name for p in images_in(tmp_path)] == ["a.JPG", "b.png"]
