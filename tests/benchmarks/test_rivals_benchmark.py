"""Times of files in turn, each in a process of its own."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import rivals
from benchmarks.rivals import _File, _times


@pytest.fixture
def file(small_v1, tmp_path):
    path = tmp_path / "float.tflite"
    path.write_bytes(small_v1.tflite)
    return _File("LiteRT float", "litert", path, Path(sys.executable))


def test_every_file_has_its_turn_in_a_process_of_its_own(file, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(rivals, "TURNS", 3)
    images = tmp_path / "images.npy"
    np.save(images, inputs[:1].numpy().transpose(0, 3, 1, 2))
    found = _times([file, file], images)
    assert [len(times) for times in found] == [3, 3]
    assert min(map(min, found)) > 0


def test_a_file_that_its_runtime_refuses_ends_the_measurement_by_its_name(file, inputs, tmp_path):
    file.path.write_bytes(b"no model")
    images = tmp_path / "images.npy"
    np.save(images, inputs[:1].numpy().transpose(0, 3, 1, 2))
    with pytest.raises(SystemExit, match="LiteRT float: ended with exit code"):
        _times([file], images)


def test_weights_beside_the_graph_count(tmp_path):
    (tmp_path / "int8.xml").write_bytes(b"1234")
    (tmp_path / "int8.bin").write_bytes(b"123456")
    assert _File("OpenVINO", "openvino", tmp_path / "int8.xml", Path("python")).size == 10
