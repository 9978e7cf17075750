"""The benchmark of tasks: no image that calibrates is looked at, and the cosine of embeddings is the angle's."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.stock import RECIPES, quantize
from benchmarks.tasks import parted
from qhyvit.errors import InputError
from qhyvit.tasks.embed import cosines
from qhyvit.work import default_preprocess, input_shape


def pictures(folder, shades):
    for number, shade in enumerate(shades):
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(folder / f"{number}.png")


@pytest.mark.parametrize("seed", range(5))
def test_no_image_is_in_both_parts_even_under_another_name(tmp_path, seed):
    pictures(tmp_path, [*range(6), 0, 1, 2])
    first, second = parted(tmp_path, 3, 3, seed)
    contents = [p.read_bytes() for p in (*first, *second)]
    assert len(first) == len(second) == 3
    assert len(set(contents)) == 6


def test_too_few_different_images_are_refused(tmp_path):
    pictures(tmp_path, [0, 0, 0, 1])
    with pytest.raises(InputError, match="2 different images, 2 \\+ 1 are needed"):
        parted(tmp_path, 2, 1, 0)


def test_the_cosine_is_that_of_the_angle():
    angles = np.array([0.0, 0.3, np.pi / 2, np.pi])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([[1.0], [5.0], [0.1], [2.0]])
    assert cosines(np.tile([3.0, 0.0], (4, 1)), rows) == pytest.approx(np.cos(angles), abs=1e-12)


def test_the_stock_quantizer_takes_a_float_file_of_ours(small_v1):
    """Its input has the name that our exporter gave it."""
    pytest.importorskip("ai_edge_quantizer")
    pixels = np.random.default_rng(0).integers(0, 256, (2, *input_shape(small_v1.facts)), dtype=np.uint8)
    made = quantize(small_v1.tflite, RECIPES[0], pixels, default_preprocess(small_v1.facts))
    assert len(made) < 0.4 * len(small_v1.tflite)
