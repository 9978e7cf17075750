"""Times of files in turn, each in a process of its own."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import rivals, rivals_child
from benchmarks.rivals import _File, _graphs, _rivals, _times


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


def test_every_rival_is_made_and_run_by_the_child():
    assert set(rivals.ENDS) == set(rivals_child.MAKE)
    assert set(rivals.SAYS) == {*rivals.ENDS, "litert"} == set(rivals_child.INFER)
    assert set(rivals.INT8) == {*rivals.ENDS} - {"ncnn"}  # whose tools for int8 are in no wheel


@pytest.mark.parametrize(("runtime", "labels"), [
    ("ncnn", ["ncnn float"]), ("executorch", ["ExecuTorch float", "ExecuTorch XNNPACK int8"]),
])  # fmt: skip
def test_files_that_were_made_are_taken_up(runtime, labels, tmp_path):
    (tmp_path / runtime).mkdir()
    for kind in ("float", "int8"):
        (tmp_path / runtime / f"{kind}.{rivals.ENDS[runtime]}").write_bytes(b"made")
    args = SimpleNamespace(runtimes=runtime, work=tmp_path, python=Path("none"))
    assert [file.label for file in _rivals(args, tmp_path / "model.onnx", tmp_path / "images.npy")] == labels


def test_a_runtime_that_makes_no_file_is_told_and_left_out(tmp_path, capsys):
    np.save(tmp_path / "images.npy", np.zeros((1, 3, 8, 8), np.float32))
    args = SimpleNamespace(runtimes="ncnn", work=tmp_path, python=Path(sys.executable))
    assert _rivals(args, tmp_path / "model.onnx", tmp_path / "images.npy") == []
    assert capsys.readouterr().out.startswith("ncnn: ")


def test_pytorchs_own_export_lies_beside_the_onnx_file(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **more: None)  # takes an extra
    module = torch.nn.Conv2d(3, 2, 1)
    path = _graphs(module, (4, 4, 3), tmp_path)
    example = torch.randn(1, 3, 4, 4)
    assert torch.equal(torch.export.load(path.with_suffix(".pt2")).module()(example), module(example))
