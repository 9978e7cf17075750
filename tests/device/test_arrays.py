"""Arrays as inputs: what a file or numpy holds becomes the model's input, and anything else is one line."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from qhyvit_device import arrays
from qhyvit_device.arrays import checked, read_array
from qhyvit_device.errors import InputError, ManifestError
from qhyvit_device.manifest import from_dict
from qhyvit_device.preprocess import Preprocess, fitted, images_in, load_input, normalize, quantize, to_pixels

SHAPE = 4, 6, 5
VALUES = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
PIXELS = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
FIVE = Preprocess("crop", 8, "bicubic", (0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.6, 0.7, 0.8, 0.9))


def npy(array, version=(1, 0)):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize("array", [
    VALUES, VALUES[None], VALUES.astype(np.float64), VALUES.astype(">f4"), np.asfortranarray(VALUES), VALUES[:, ::-1],
    PIXELS, PIXELS[None], np.asfortranarray(PIXELS), VALUES.astype(np.float16),
])  # fmt: skip
@pytest.mark.parametrize("form", ["npy", "npz", "packed"])
def test_a_file_gives_what_numpy_wrote(tmp_path, array, form):
    path = tmp_path / f"x.{'npy' if form == 'npy' else 'npz'}"
    {"npy": np.save, "npz": np.savez, "packed": np.savez_compressed}[form](path, array)
    expected = array if array.dtype == np.uint8 else array.astype(np.float32)
    for found in (read_array(path, SHAPE), read_array(io.BytesIO(path.read_bytes())), checked(array, SHAPE)):
        assert found.dtype == expected.dtype.newbyteorder("=")
        assert np.array_equal(found, expected.reshape(SHAPE))


def test_one_channel_may_have_no_axis_of_its_own():
    assert checked(VALUES[..., 0], (4, 6, 1)).shape == (4, 6, 1)
    assert checked(VALUES[..., 0]).shape == (4, 6, 1)
    with pytest.raises(InputError, match=r"an array of \[4, 6\], the model takes \[4, 6, 5\]"):
        checked(VALUES[..., 0], SHAPE)


@pytest.mark.parametrize(("array", "words"), [
    (VALUES.transpose(2, 0, 1), "channels come last: transpose it"),
    (VALUES[None].transpose(0, 3, 1, 2), "channels come last"),
    (VALUES[:3], "an array of [3, 6, 5], the model takes [4, 6, 5]; arrays are not resized"),
    (np.stack([VALUES] * 2), "an array of [2, 4, 6, 5]"), (VALUES.ravel(), "an array of [120]"),
    (VALUES.astype(np.int64), "an array of int64; give pixels as uint8"), (VALUES > 0, "an array of bool"),
    (PIXELS.astype(np.uint16), "an array of uint16"), (VALUES.astype(np.longdouble), "an array of"),
    (VALUES + 1j, "an array of complex"), (np.full(SHAPE, np.nan), "not finite"), (np.full(SHAPE, 1e300), "not finite"),
    (np.zeros((0, 6, 5), np.float32), "an array of [0, 6, 5]"), (np.full(SHAPE, "x"), "an array of <U1"),
    (np.empty(SHAPE, object), "an array of object"), (np.zeros(SHAPE, [("a", "f4")]), "an array of [('a', '<f4')]"),
])  # fmt: skip
def test_what_is_no_input_is_one_line(tmp_path, array, words):
    path = tmp_path / "x.npy"
    path.write_bytes(npy(array))
    for call, name in ((lambda: checked(array, SHAPE), ""), (lambda: read_array(path, SHAPE), f"{path}: ")):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value).startswith(name)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def packed(*members, kind=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for i, content in enumerate(members):
            archive.writestr(f"{i}.npy", content)
    return stream.getvalue()


GOOD = npy(VALUES)
HOSTILE = {
    "cannot read array": [
        b"PK\x03\x04", packed(GOOD)[:-9], packed(b"no array"), GOOD[:9], GOOD[:40],
        GOOD.replace(b"'descr'", b"'descX'"), GOOD.replace(b"(4, 6, 5)", b"(4, 6, x)"), GOOD.replace(b"<f4", b"<x4"),
        GOOD.replace(b"(4, 6, 5)", b"((((((((("),
    ],
    "an array of": [
        GOOD.replace(b"(4, 6, 5)", b"(4, -6,5)"), GOOD.replace(b"(4, 6, 5)", b"(9999999,)"),
        GOOD.replace(b"(4, 6, 5)", b"(4,6,5,5)"),
    ],
    "truncated": [GOOD[:200], packed(GOOD[:300])],
    "version 1.0": [npy(VALUES, (2, 0)), npy(VALUES, (3, 0)), GOOD.replace(b"NUMPY\x01", b"NUMPY\x09")],
    "not a .npy or .npz file": [b"", b"\x93NUMP", b"text that is no array"],
    "holds 2 arrays": [packed(GOOD, GOOD)],
    "numpy does not write": [packed(GOOD, kind=zipfile.ZIP_LZMA), packed(GOOD, kind=zipfile.ZIP_BZIP2)],
}  # fmt: skip


@pytest.mark.parametrize(("words", "content"), [(w, c) for w, contents in HOSTILE.items() for c in contents])
def test_a_damaged_file_is_one_line(tmp_path, words, content):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_array(path, SHAPE)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_is_allocated_for_what_a_header_claims(tmp_path, monkeypatch):
    """Neither what a header claims nor what a few bytes unpack to is read before it is known to fit."""
    asked = []
    real = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda s, n=-1: asked.append(n) or real(s, n))
    claims = GOOD.replace(b"(4, 6, 5)", b"(99999,) ")
    for content in (claims, packed(claims + bytes(1 << 24), kind=zipfile.ZIP_DEFLATED)):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"an array of \[99999\]"):
            read_array(tmp_path / "x.npz")
    assert max(asked) <= arrays.MOST_HEADER
    (tmp_path / "x.npz").write_bytes(packed(GOOD) + bytes(2 << 20))
    with pytest.raises(InputError, match="refused, more than 1 MB"):
        read_array(tmp_path / "x.npz", SHAPE)


def test_objects_are_never_unpickled(tmp_path):
    class Harm:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    path = tmp_path / "x.npy"
    np.save(path, np.array([Harm()], object), allow_pickle=True)
    with pytest.raises(InputError, match="an array of object"):
        read_array(path)
    assert not (tmp_path / "ran").exists()


def test_a_fifo_is_no_array(tmp_path):
    import os

    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(InputError, match="not a regular file"):
        read_array(tmp_path / "x.npy")


def test_bytes_are_pixels_and_floats_are_what_the_network_takes():
    expected = (PIXELS / 255.0 - FIVE.mean) / FIVE.std
    assert np.allclose(normalize(PIXELS, FIVE), expected, rtol=1e-6)
    codes = np.clip(np.rint(expected / 0.02) + 3, -128, 127)
    assert np.array_equal(quantize(PIXELS, FIVE, 0.02, 3, "int8"), codes)
    assert np.array_equal(normalize(VALUES, FIVE), VALUES)
    codes = np.clip(np.rint(VALUES.astype(np.float64) / 0.02) + 3, -128, 127)
    assert np.array_equal(quantize(VALUES, FIVE, 0.02, 3, "int8"), codes)


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (64, 8)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_one_channel_is_the_gray_that_pillow_makes(tmp_path, size, mode):
    rng = np.random.default_rng(1)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 1 << 16, size[::-1], dtype=np.uint16))
        gray = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    else:
        pixels = rng.integers(0, 256, (*size[::-1], len(mode)), dtype=np.uint8)
        image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels)
        white = Image.new("RGBA", size, (255,) * 4)
        gray = (Image.alpha_composite(white, image).convert("RGB") if mode == "RGBA" else image).convert("L")
    image.save(tmp_path / "x.png")
    how = Preprocess("squash", 8, "bilinear", (0.5,), (0.5,))
    found = load_input(tmp_path / "x.png", (12, 10, 1), how)
    assert (found.shape, found.dtype) == ((12, 10, 1), np.uint8)
    assert np.array_equal(found[..., 0], np.asarray(gray.resize((10, 12), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("size", [(100, 100), (40, 160), (160, 40), (50, 100)])
def test_a_picture_covers_a_rectangle_and_no_more(size):
    """In mode crop a picture is as small as it may be to cover the input, times resize / its shortest side."""
    ramp = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), -1).astype(np.uint8)
    image = Image.fromarray(np.concatenate((ramp, ramp[..., :1]), -1))
    found = to_pixels(image, 64, 32, Preprocess("crop", 32, "bilinear")).astype(float)
    scale = max(64 / size[1], 32 / size[0])
    seen = 31 / scale, 63 / scale
    assert abs(found[0, -1, 0] - found[0, 0, 0] - seen[0]) <= 3
    assert abs(found[-1, 0, 1] - found[0, 0, 1] - seen[1]) <= 3
    assert np.abs(found[32, 16, :2] - np.array(size) / 2).max() <= 2


def test_pictures_are_no_input_of_five_channels():
    with pytest.raises(InputError, match="a picture cannot be the input of 5 channels"):
        fitted(Image.new("RGB", (6, 4)), SHAPE, FIVE)


def test_a_folder_holds_images_else_arrays(tmp_path):
    for name in ("b.npy", "a.npz", ".hidden.npy"):
        (tmp_path / name).write_bytes(GOOD)
    assert [p.name for p in images_in(tmp_path)] == ["a.npz", "b.npy"]
    Image.new("RGB", (2, 2)).save(tmp_path / "c.png")
    assert [p.name for p in images_in(tmp_path)] == ["c.png"]


def raw(channels=None, order=None, values=3):
    entry = {"height": 4, "width": 6, "dtype": "int8", "scale": 0.1, "zero_point": 0}
    entry |= {} if channels is None else {"channels": channels}
    entry |= {} if order is None else {"channel_order": order}
    return {
        "model": "m", "profile": "integer", "input": entry,
        "output": {"classes": 2, "dtype": "int8", "scale": 0.1, "zero_point": 0}, "schema_version": 1,
        "preprocess": {"mode": "crop", "resize": 8, "interpolation": "bicubic", "mean": [0.0] * values,
                       "std": [1.0] * values},
        "test": {"image_file": "t", "codes": [1], "machine": "m", "runtime": "r"},
        "checksums": dict.fromkeys(("model.tflite", "labels.txt", "t"), ""),
    }  # fmt: skip


def test_a_manifest_says_its_channels_and_an_old_one_means_three():
    assert from_dict(raw()).input.shape == (4, 6, 3)
    assert from_dict(raw(1, "L", 1)).input.shape == (4, 6, 1)
    assert from_dict(raw(5, "", 5)).input.shape == (4, 6, 5)
    for wrong, words in (
        (raw(5, "RGB", 5), "need NHWC "), (raw(1, "RGB", 1), "need NHWC L"), (raw(5, ""), "3 means for 5 channels"),
        (raw(0, "", 3), "0 channels is out of bounds"), (raw(17, ""), "17 channels"), (raw("3"), "wrong type"),
        (raw(3, "BGR"), "need NHWC RGB"),
    ):  # fmt: skip
        with pytest.raises(ManifestError, match=words):
            from_dict(wrong)
