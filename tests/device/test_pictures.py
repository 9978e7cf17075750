"""Pictures of every mode: what a file gives, an image in memory gives; 16 bits, alpha, hidden and broken files."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from qhyvit_device.errors import InputError
from qhyvit_device.preprocess import Preprocess, as_rgb, folder_preprocess, images_in, load_image

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (12, 9), dtype=np.uint8)


def palette(transparency=None):
    image = Image.fromarray(GRAY % 4).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def with_info(image, **info):
    image.info.update(info)
    return image


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(COLOURS)
    image.info["exif"] = exif.tobytes()
    return image


RGBA = Image.fromarray(np.dstack([COLOURS, GRAY]))
LOSSLESS = {
    "1": (Image.fromarray(GRAY > 127), "PNG"),
    "L": (Image.fromarray(GRAY), "PNG"),
    "L, one gray transparent": (with_info(Image.fromarray(GRAY % 3), transparency=1), "PNG"),
    "LA": (RGBA.convert("LA"), "PNG"),
    "P": (palette(), "PNG"),
    "P, one colour transparent": (palette(2), "PNG"),
    "P, alpha a colour": (palette(bytes([0, 128, 255, 7])), "PNG"),
    "RGB": (Image.fromarray(COLOURS), "PNG"),
    "RGB, one colour transparent": (with_info(Image.fromarray(COLOURS % 2), transparency=(1, 0, 1)), "PNG"),
    "RGBA": (RGBA, "PNG"),
    "RGBA as WebP": (RGBA, "WEBP"),
    "I;16": (Image.fromarray(GRAY.astype(np.uint16) * 257), "PNG"),
    "I": (Image.fromarray(GRAY.astype(np.int32) * 257), "PNG"),
    "I as PGM": (Image.fromarray(GRAY.astype(np.int32) * 257), "PPM"),
    "F": (Image.fromarray(GRAY.astype(np.float32)), "PPM"),
    "turned by EXIF": (turned(), "PNG"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSLESS)
def test_an_image_in_memory_is_the_picture_that_its_file_holds(name):
    image, kind = LOSSLESS[name]
    before = image.tobytes()
    file = io.BytesIO()
    extra = {"exif": image.info["exif"]} if "exif" in image.info else {}
    image.save(file, kind, **extra, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    file.seek(0)
    ours = as_rgb(image)
    assert ours.mode == "RGB"
    assert np.array_equal(np.asarray(ours), np.asarray(load_image(file)))
    assert image.tobytes() == before
    assert np.array_equal(np.asarray(as_rgb(ours)), np.asarray(ours))  # nothing is done twice


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX", "RGBa", "PA"])
def test_modes_that_no_lossless_file_holds_are_what_pillow_says_they_show(mode):
    image = RGBA.convert(mode) if mode in ("RGBa", "RGBX") else palette().convert("PA") if mode == "PA" else (
        Image.fromarray(COLOURS).convert(mode)
    )  # fmt: skip
    shown = as_rgb(image.convert("RGBA")) if mode in ("RGBa", "PA") else image.convert("RGB")
    assert np.array_equal(np.asarray(as_rgb(image)), np.asarray(shown))


def expected_gray(values):
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


def test_what_the_modes_mean():
    gray = {
        "L": GRAY,
        "I;16": GRAY.astype(np.uint16) * 257,
        "I": GRAY.astype(np.int32) * 257,
        "F": GRAY.astype(np.float32),
    }
    for mode, values in gray.items():
        image = Image.fromarray(values)
        assert image.mode == mode
        assert np.array_equal(np.asarray(as_rgb(image)), expected_gray(GRAY)), mode
    big_endian = Image.frombytes("I;16B", (9, 12), (GRAY.astype(">u2") * 257).tobytes())
    assert np.array_equal(np.asarray(as_rgb(big_endian)), expected_gray(GRAY))
    assert np.array_equal(np.asarray(as_rgb(Image.fromarray(GRAY > 127))), expected_gray(np.where(GRAY > 127, 255, 0)))


def test_sixteen_bits_round_to_the_nearest_of_eight():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(np.asarray(as_rgb(Image.fromarray(every)))[..., 0], np.rint(every / 257).astype(np.uint8))


def test_alpha_lies_over_white():
    found = np.asarray(as_rgb(RGBA)).astype(int)
    share = GRAY[..., None] / 255
    assert np.abs(found - (COLOURS * share + 255 * (1 - share))).max() <= 1
    hidden = np.zeros((4, 4, 4), np.uint8)
    hidden[..., 0] = 255  # red that no viewer shows
    for image in (
        Image.fromarray(hidden),
        Image.fromarray(hidden).convert("RGBa"),
        Image.fromarray(hidden[..., [0, 3]], "LA"),
    ):
        assert np.all(np.asarray(as_rgb(image)) == 255), image.mode
    assert np.all(np.asarray(as_rgb(palette(bytes([0, 0, 0, 0])))) == 255)
    gray = with_info(Image.fromarray(np.array([[5, 6]], np.uint16)), transparency=5)
    assert np.asarray(as_rgb(gray))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(("image", "words"), [
    (Image.new("RGB", (0, 5)), "no pixels"),
    (Image.new("RGB", (1, 3000)), "too narrow"),
    (Image.new("F", (4, 4), 0.5), "0..255"),
    (Image.new("F", (4, 4), float("nan")), "0..255"),
    (Image.new("F", (4, 4), 300.0), "0..255"),
    (Image.new("I", (4, 4), 70000), "0..65535"),
    (Image.new("I", (4, 4), -1), "0..65535"),
])  # fmt: skip
def test_what_has_no_meaning_is_refused_with_the_reason(image, words):
    with pytest.raises(InputError, match=words):
        as_rgb(image)


def test_what_is_no_image_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"Image\.fromarray"):
        load_image(COLOURS)
    with pytest.raises(InputError, match="int"):
        load_image(3)


def test_hidden_files_are_no_images(tmp_path):
    for name in ("a.jpg", "._a.jpg", ".x.png", ".cache/b.jpg", "__MACOSX/._a.jpg", "deep/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [str(p.relative_to(tmp_path)) for p in images_in(tmp_path)] == ["a.jpg", "deep/c.png"]
    inside = tmp_path / ".cache"  # asked for by name
    assert [p.name for p in images_in(inside)] == ["b.jpg"]


@pytest.mark.parametrize("text", [
    '{"resize": true}', '{"resize": 256.5}', '{"mode": false}', '{"resize": null}', '{"resize": -1}',
    '{"resize": 1e400}', '{"interpolation": 3}', '{"resize": {}}', "true", "3", "[" * 100_000, '{"resize": NaN}',
    '{"mode": "crop", "size": 3}',
])  # fmt: skip
def test_metadata_of_wrong_types_is_refused_in_one_line_with_the_path(tmp_path, text):
    (tmp_path / "preprocess.json").write_text(text)
    with pytest.raises(InputError, match=r"preprocess\.json") as caught:
        folder_preprocess(tmp_path, Preprocess("crop", 72, "bicubic"))
    assert "\n" not in str(caught.value)


def test_metadata_that_is_no_utf8_is_refused_and_a_mark_at_its_start_is_read_over(tmp_path):
    path, plain = tmp_path / "preprocess.json", Preprocess("crop", 72, "bicubic")
    path.write_bytes(b'{"mode": "\xe9"}')
    with pytest.raises(InputError, match=r"preprocess\.json"):
        folder_preprocess(tmp_path, plain)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"mode": "squash"}).encode())
    assert folder_preprocess(tmp_path, plain).mode == "squash"
