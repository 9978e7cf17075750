"""Pictures within bounds: pixels are Pillow's to the bit, memory has a limit, formats and metadata do no harm."""

import io
import struct
import subprocess
import sys
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from qhyvit_device import pictures
from qhyvit_device.errors import InputError
from qhyvit_device.pictures import decoded
from qhyvit_device.preprocess import FILTERS, Preprocess, load_image, to_pixels

MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16")


def drawn(width, height, mode, orientation, seed=0):
    rng = np.random.default_rng(seed)
    shape = (height, width, 4) if mode == "RGBA" else (height, width, 3)
    image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    else:
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    return image


def by_pillow(image, height, width, how):
    """Turn, convert, scale and crop the picture as a whole."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "I;16":
        gray = np.rint(np.asarray(image).astype(np.float64) * (255 / 65535)).astype(np.uint8)
        image = Image.fromarray(gray).convert("RGB")
    elif image.mode in ("RGBA", "LA"):
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    image = image.convert("RGB")
    resample = FILTERS[how.interpolation]
    if how.mode == "squash":
        return np.asarray(image.resize((width, height), resample))
    sides = [round(how.resize * side / min(width, height)) for side in (width, height)]
    ratio = max(Fraction(side, own) for side, own in zip(sides, image.size, strict=True))
    image = image.resize((int(ratio * image.width), int(ratio * image.height)), resample)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return np.asarray(image.crop((left, top, left + width, top + height)))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 90), st.sampled_from(MODES), st.integers(1, 8), st.sampled_from(sorted(FILTERS)),
    st.sampled_from(("crop", "squash")), st.integers(8, 70), st.sampled_from((1, 50, 700, 1 << 18)),
)  # fmt: skip
def test_pixels_are_those_of_pillow_whatever_the_strips(width, height, mode, orientation, filter_, how, resize, strip):
    image, rule = drawn(width, height, mode, orientation), Preprocess(how, resize, filter_)
    kept, pictures.STRIP = pictures.STRIP, strip
    try:
        found = to_pixels(image, 32, 40, rule)
    finally:
        pictures.STRIP = kept
    assert np.array_equal(found, by_pillow(image, 32, 40, rule))


@pytest.mark.parametrize("size", [(3000, 3), (3, 3000), (900, 2), (2, 900)])
@pytest.mark.parametrize("how", ["crop", "squash"])
def test_narrow_pictures_differ_in_the_last_bit_at_most(size, how, monkeypatch):
    monkeypatch.setattr("qhyvit_device.preprocess.MOST_BETWEEN", 1000)
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3).astype(np.uint8)
    rule = Preprocess(how, 36, "bicubic")
    image = Image.fromarray(ramp)
    difference = to_pixels(image, 32, 32, rule).astype(int) - by_pillow(image, 32, 32, rule)
    assert np.abs(difference).max() <= 1


def test_other_formats_are_refused_whatever_the_name(tmp_path):
    for kind in ("TIFF", "GIF", "EPS", "ICO", "TGA"):
        Image.new("RGB", (16, 16)).save(tmp_path / "x.jpg", kind)
        with pytest.raises(InputError, match=r"x\.jpg: not an image that can be read"):
            load_image(tmp_path / "x.jpg")


def png(*chunks, width=1, height=1, kind=2):
    """A PNG of any chunks, its header first."""
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in ((b"IHDR", head), *chunks, (b"IEND", b"")):
        parts += [struct.pack(">I", len(content)), name, content, struct.pack(">I", zlib.crc32(name + content))]
    return b"".join(parts)


PIXEL = (b"IDAT", zlib.compress(b"\0\x09\x63\xc8"))
EXIF = [
    b"", b"Exif\0\0", b"II*\0\xff\xff\xff\xff", b"MM\0*" + b"\xff" * 40,
    b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\xff\xff\0\0\x1a\0\0\0\0\0\0\0x",
    b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",
]  # fmt: skip


@pytest.mark.parametrize("exif", EXIF, ids=range(len(EXIF)))
def test_damaged_metadata_are_no_part_of_the_picture(exif):
    for chunks in ([(b"eXIf", exif), PIXEL], [PIXEL, (b"eXIf", exif)], [(b"iCCP", b"x\0\0" + exif), PIXEL]):
        assert np.asarray(load_image(io.BytesIO(png(*chunks)))).tolist() == [[[9, 0x63, 200]]]
    image = Image.new("RGB", (1, 1), (9, 99, 200))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=100, exif=b"Exif\0\0" + exif, icc_profile=exif * 9, comment=exif)
    assert np.abs(np.asarray(load_image(stream)).astype(int) - (9, 99, 200)).max() <= 3
    image.info["exif"] = exif
    assert to_pixels(image, 1, 1, Preprocess("squash", 1, "nearest")).tolist() == [[[9, 99, 200]]]


def test_an_orientation_behind_the_pixels_counts():
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = (b"IDAT", zlib.compress(b"\0\x01\x02\x03\0\x04\x05\x06"))
    found = load_image(io.BytesIO(png(rows, (b"eXIf", exif.tobytes()[6:]), height=2)))
    assert np.asarray(found).tolist() == [[[4, 5, 6], [1, 2, 3]]]


def solid(mode, width, height, kind, **options):
    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, kind, **options)
    return stream.getvalue()


def many_scans(jpeg):
    """A baseline JPEG that says that its first scan has one component: its decoder has to keep all coefficients."""
    at = jpeg.index(b"\xff\xda")
    return jpeg[: at + 2] + b"\x00\x08\x01\x01\x00\x00\x3f\x00" + jpeg[at + 14 :]


def segments(jpeg, count, name=b"\xff\xe1", start=b"Exif\0\0II*\0"):
    segment = name + struct.pack(">H", 65535) + start.ljust(65533, b"\0")
    return jpeg[:2] + count * segment + jpeg[2:]


def bmp_of_runs(width, height):
    """A BMP of 8 bits whose rows are runs of one colour."""
    row = b"\xff\1" * (width // 255) + bytes([width % 255, 1]) + b"\0\0"
    pixels, palette = row * height + b"\0\1", bytes(1024)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(pixels), 0, 0, 54 + 1024) + head + palette + pixels


HOSTILE = {
    "60000x1": lambda: solid("RGB", 60000, 1, "PNG"),
    "1x60000": lambda: solid("RGB", 1, 60000, "PNG"),
    "wide": lambda: solid("RGB", 60000, 60, "PNG"),
    "tall": lambda: solid("L", 180, 179999, "PNG"),
    "13000x13000": lambda: solid("1", 13000, 13000, "PNG"),
    "largest PNG": lambda: solid("RGB", 3500, 3500, "PNG"),
    "largest gray PNG": lambda: solid("L", 7000, 7000, "PNG"),
    "alpha": lambda: solid("RGBA", 3500, 3500, "PNG"),
    "16 bits": lambda: solid("I;16", 5000, 5000, "PNG"),
    "a phone's": lambda: solid("RGB", 4032, 3024, "JPEG", exif=turned()),
    "100 million": lambda: solid("RGB", 11000, 9000, "JPEG"),
    "progressive": lambda: solid("RGB", 4032, 3024, "JPEG", progressive=True, subsampling=0),
    "progressive, whole": lambda: solid("RGB", 3000, 2300, "JPEG", progressive=True),
    "progressive, half": lambda: solid("RGB", 4000, 3000, "JPEG", progressive=True),
    "progressive, large": lambda: solid("RGB", 8000, 6000, "JPEG", progressive=True),
    "CMYK": lambda: solid("CMYK", 6000, 4000, "JPEG"),
    "many scans": lambda: many_scans(solid("RGB", 4000, 3000, "JPEG")),
    "WebP": lambda: solid("RGB", 1650, 1650, "WEBP"),
    "WebP, large": lambda: solid("RGB", 9000, 9000, "WEBP"),
    "BMP": lambda: solid("RGB", 3900, 3000, "BMP"),
    "a BMP that ends early": lambda: solid("RGB", 3900, 3000, "BMP")[:5000],
    "plain PPM": lambda: b"P3 980 980 255\n" + b"255 " * 3 * 980 * 980,
    "plain PPM, large": lambda: b"P3 1000 1000 255\n" + b"9 " * 3_000_000,
    "PPM of few values": lambda: b"P6 2000 2000 15\n" + bytes(12_000_000),
    "PPM of few values, large": lambda: b"P6 4000 3000 15\n" + bytes(36_000_000),
    "PGM of floats": lambda: b"Pf 3500 3500 -1\n" + bytes(49_000_000),
    "PGM of 16 bits": lambda: b"P5 2000 2000 65535\n" + bytes(8_000_000),
    "BMP of runs": lambda: bmp_of_runs(2000, 2000),
    "EXIF": lambda: segments(solid("RGB", 3500, 3500, "JPEG"), 120),
    "more EXIF": lambda: segments(solid("RGB", 64, 64, "JPEG"), 3000),
    "ICC": lambda: segments(solid("RGB", 64, 64, "JPEG"), 120, b"\xff\xe2", b"ICC_PROFILE\0\1\1"),
    "a chunk before": lambda: png((b"prIv", bytes(200 << 20)), PIXEL),
    "a chunk behind": lambda: png(PIXEL, (b"prIv", bytes(200 << 20))),
    "chunks behind": lambda: png(PIXEL, *[(b"prIv", bytes(1 << 20))] * 100),
    "pixels behind": lambda: png((b"IDAT", PIXEL[1] + bytes(200 << 20))),
    "texts": lambda: png(*[(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20)))] * 60, PIXEL),
    "a profile": lambda: png((b"iCCP", b"k\0\0" + zlib.compress(bytes(300 << 20))), PIXEL),
}  # fmt: skip


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


MEASURE = """
import sys
from qhyvit_device import Model
from qhyvit_device.errors import InputError
def now(key): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
model = Model.load(sys.argv[1])
model.classify(sys.argv[2])
idle = now("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
try:
    said = len(model.classify(sys.argv[3]))
except InputError as error:
    said = repr(str(error))
print((now("VmHWM") - idle) / 1024, said)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", HOSTILE)
def test_memory_of_any_picture_is_bounded(name, bundle, tmp_path):
    (tmp_path / "x.jpg").write_bytes(HOSTILE[name]())
    command = [sys.executable, "-c", MEASURE, bundle, bundle / "test.png", tmp_path / "x.jpg"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    mebibytes, said = done.stdout.split(maxsplit=1)
    assert float(mebibytes) <= 64, said
    assert said.count("\n") == 1


def test_large_jpegs_are_decoded_smaller_and_others_refused(tmp_path):
    large = decoded(io.BytesIO(solid("RGB", 5000, 4000, "JPEG")), pictures.DRAFT_BYTES)
    assert large.size == (2500, 2000)
    assert decoded(io.BytesIO(solid("RGB", 4032, 3024, "JPEG")), pictures.DRAFT_BYTES).size == (4032, 3024)
    with pytest.raises(InputError, match=r"5000x4000 pixels take 76 MiB .* or a JPEG"):
        decoded(io.BytesIO(solid("RGB", 5000, 4000, "PNG")), pictures.DRAFT_BYTES)
    assert decoded(io.BytesIO(solid("RGB", 5000, 4000, "PNG"))).size == (5000, 4000)  # a host has more memory
