"""Finished pieces: kept, found again, thrown away with another key, damaged ones ignored."""

import numpy as np
import pytest

from qhyvit import files
from qhyvit.errors import InputError
from qhyvit.store import Store


def test_a_piece_comes_back(tmp_path):
    store = Store(tmp_path / "part")
    store.open("a")
    store.put("x/y:0"[:1], {"n": 1.5}, {"conv/weight:0": np.arange(3.0)})
    piece = store.get("x")
    assert piece.facts == {"n": 1.5}
    assert np.array_equal(piece.arrays["conv/weight:0"], np.arange(3.0))
    assert store.get("z") is None


def test_another_key_starts_anew_and_the_same_goes_on(tmp_path):
    store = Store(tmp_path / "part")
    store.open("a")
    store.put("x", 1)
    store.open("a")
    assert store.get("x") is not None
    store.open("b")
    assert store.get("x") is None
    store.close()
    assert not (tmp_path / "part").exists()


def test_a_damaged_piece_counts_as_none(tmp_path):
    store = Store(tmp_path / "part")
    store.open("a")
    store.put("x", 1)
    path = tmp_path / "part" / "x.npz"
    path.write_bytes(path.read_bytes()[:40])
    assert store.get("x") is None


def test_without_a_folder_nothing_is_kept():
    store = Store()
    store.open("a")
    store.put("x", 1)
    assert store.get("x") is None


def test_pickles_are_refused():
    import io

    stream = io.BytesIO()
    np.savez(stream, names=np.array(["a"], dtype=object), **{"0": np.zeros(1)})
    with pytest.raises(InputError, match="damaged"):
        files.unpack_arrays(stream.getvalue(), "plan.npz")
