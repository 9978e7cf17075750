"""The demo's images: the same for the same seed, different for another, every class there."""

import hashlib

import numpy as np
import pytest

from benchmarks.demo.images import SHAPES, draw_image, generate


def digest(folder):
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.jpg"))]


def test_a_seed_gives_its_images(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate(tmp_path / name, 2, seed=seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert not set(digest(tmp_path / "a")) & set(digest(tmp_path / "c"))
    assert len(digest(tmp_path / "a")) == 2 * len(SHAPES)


def test_labels_name_every_image(tmp_path):
    from qhyvit import data

    generate(tmp_path, 3, seed=4)
    found = data.read_labels(tmp_path, None)
    assert len(found.paths) == 3 * len(SHAPES)
    assert sorted(set(found.truth.tolist())) == list(range(len(SHAPES)))


@pytest.mark.parametrize("kind", range(len(SHAPES)))
def test_an_image_is_not_flat(kind):
    pixels = np.asarray(draw_image(kind, np.random.default_rng(0), 64), np.float64)
    assert pixels.shape == (64, 64, 3)
    assert pixels.std() > 10
