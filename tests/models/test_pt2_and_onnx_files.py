"""Models in files of torch.export and ONNX: their float file computes what their own runtime does."""

import contextlib
import os
import zipfile
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from qhyvit.errors import UsageError
from qhyvit.models.shared.export import export
from qhyvit.models.shared.source import open_source
from qhyvit.tflite.read import read
from tests._model_files import Small, outputs, refusal

needs_onnx = pytest.mark.skipif(
    any(find_spec(m) is None for m in ("onnx", "onnxruntime", "onnx2pytorch")), reason="the extra onnx is not installed"
)


class Several(Small):
    def forward(self, pixels):
        x = torch.relu(self.stem(pixels))
        return self.head(x.mean((2, 3))), x


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("importers")


def pt2(path, module, *args, shapes=None, **named):
    torch.export.save(torch.export.export(module.eval(), args, named, dynamic_shapes=shapes), path)
    return path


def same_as(module, made, shape, seed=3):
    x = torch.rand(1, shape[2], *shape[:2], generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = module.eval()(x)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for found, target in zip(outputs(made.tflite, x.permute(0, 2, 3, 1).numpy()), expected, strict=True):
        torch.testing.assert_close(found, target, atol=2e-5, rtol=1e-4)


def test_a_program_is_a_module_again(place):
    path = pt2(place / "net.pt2", Small(), torch.rand(1, 3, 16, 16))
    source = open_source(str(path))
    assert (source.shape, source.classes, source.weights) == ((16, 16, 3), 4, "net.pt2")
    made = export(source)
    same_as(Small(), made, source.shape)
    assert {n.block for n in read(made.tflite).nodes} >= {"stem", "mix", "norm"}


def test_a_program_for_any_batch_that_is_called_by_name(place):
    batch = {"pixels": {0: torch.export.Dim("batch", min=1, max=9)}}
    path = pt2(place / "any.pt2", Small(nn.Softmax(-1)), pixels=torch.rand(2, 3, 16, 16), shapes=batch)
    made = export(open_source(str(path)))
    assert made.facts["cut"] == "SOFTMAX"
    assert made.facts["float_error"] < 1e-5


def test_programs_that_cannot_be_taken(place):
    both = pt2(place / "both.pt2", Two(), torch.rand(1, 3, 16, 16), torch.rand(1, 4))
    assert "takes 2 inputs (pixels, mask)" in refusal(both)
    assert "takes 2 images at once" in refusal(pt2(place / "two.pt2", Small(), torch.rand(2, 3, 16, 16)))
    whole = pt2(place / "whole.pt2", Whole(), torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    assert "'pixels' is torch.uint8" in refusal(whole)
    foreign = place / "foreign.pt2"
    for content in (b"", b"PK\x03\x04 half", b"none of it"):
        foreign.write_bytes(content)
        assert "is no program of torch.export" in refusal(foreign)
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("a/b.txt", "c")
    assert "holds no program of torch.export" in refusal(foreign)


class Two(Small):
    def forward(self, pixels, mask):
        return super().forward(pixels) * mask


class Whole(Small):
    def forward(self, pixels):
        return super().forward(pixels.float())


class Command:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_program_runs_nothing_when_it_is_read(place):
    path, trap = pt2(place / "trap.pt2", Small(), torch.rand(1, 3, 16, 16)), place / "sprung"
    torch.save(Command(str(trap)), place / "command.pt")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name, content in members.items() if content[:2] == b"PK")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, pickled: (place / "command.pt").read_bytes()}.items():
            archive.writestr(name, content)
    assert "holds no program of torch.export" in refusal(path)
    assert not trap.exists()
    with contextlib.suppress(Exception):
        torch.export.load(str(path))
    assert trap.exists()  # torch alone runs it
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data/constants/opaque_obj_0", b"x")
    assert "holds objects" in refusal(path)


@needs_onnx
@pytest.mark.parametrize("any_batch", [False, True])
def test_an_onnx_computes_what_onnxruntime_does(place, any_batch):
    path = onnx_file(place / f"small{any_batch}.onnx", Small(), any_batch=any_batch)
    source = open_source(str(path))
    assert (source.shape, source.classes, source.weights) == ((16, 16, 3), 4, path.name)
    made = export(source)
    same_as(Small(), made, source.shape)
    assert made.facts["versions"].keys() >= {"onnx", "onnxruntime", "onnx2pytorch"}
    ops = [n.op for n in read(made.tflite).nodes]
    assert "TRANSPOSE" not in ops
    assert ops.count("FULLY_CONNECTED") == 2  # the row's product with itself, and the head


def onnx_file(path, module, *, any_batch=False, **options):
    axes = {"pixels": {0: "batch"}} if any_batch else None
    with pytest.warns(DeprecationWarning, match="TorchScript-based"):
        torch.onnx.export(module.eval(), (torch.rand(1, 3, 16, 16),), path, dynamo=False, input_names=["pixels"],
                          dynamic_axes=axes, **options)  # fmt: skip
    return path


@needs_onnx
def test_outputs_of_an_onnx_have_its_names(place):
    path = onnx_file(place / "several.onnx", Several(), output_names=["logits", "map"])
    made = export(open_source(str(path)))
    assert made.facts["outputs"] == [{"name": "logits", "shape": [4]}, {"name": "map", "shape": [8, 4, 4]}]
    same_as(Several(), made, (16, 16, 3))


@needs_onnx
def test_what_an_onnx_cannot_be_is_refused_by_name(place):
    import onnx
    from onnx import TensorProto, helper

    def model(nodes, inputs=("x",), dims=(1, 3, 8, 8), kind=TensorProto.FLOAT, domain=""):
        given = [helper.make_tensor_value_info(name, kind, dims) for name in inputs]
        graph = helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
        imports = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
        onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
        return refusal(path)

    path, add = place / "made.onnx", helper.make_node("Add", ["x", "m"], ["y"])
    assert "takes 2 inputs (x, m)" in model([add], ("x", "m"))
    assert "input 'x' is UINT8" in model([helper.make_node("Relu", ["x"], ["y"])], kind=TensorProto.UINT8)
    mine = helper.make_node("Mine", ["x"], ["y"], domain="my.ops")
    assert "custom op my.ops:Mine" in model([mine], domain="my.ops")
    det = helper.make_node("Det", ["x"], ["y"])
    assert "linalg_det" in model([det])
    scale, zero = helper.make_node("Constant", [], ["s"], value_float=0.1), helper.make_node("Relu", ["x"], ["z"])
    codes = helper.make_node("QuantizeLinear", ["z", "s"], ["y"])
    assert "is quantized already (QuantizeLinear at y)" in model([scale, zero, codes])
    path.write_bytes(b"none")
    assert "is no .onnx file" in refusal(path)


def test_the_extra_is_named_where_it_is_missing(place, monkeypatch):
    (place / "net.onnx").write_bytes(b"")
    monkeypatch.setattr("qhyvit.models.shared.importer.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"\.onnx files need onnx: pip install 'qhyvit\[onnx\]'"):
        open_source(str(place / "net.onnx"))
