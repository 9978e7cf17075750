"""Models that lie in files: whoever exported them, their float file computes what their own runtime does."""

import contextlib
import dataclasses
import json
import os
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qhyvit
from qhyvit import cli, files
from qhyvit.config import BuildConfig, ModelConfig
from qhyvit.errors import ExportError, InputError, QhyvitError, UsageError
from qhyvit.graph.ir import Quantization
from qhyvit.models.importers import all_importers
from qhyvit.models.shared.export import export
from qhyvit.models.shared.importer import image_shape
from qhyvit.models.shared.input_facts import Pixels
from qhyvit.models.shared.source import open_source
from qhyvit.models.shared.submodules import with_equivalents
from qhyvit.models.shared.torch_forms import TorchForms
from qhyvit.models.shared.weights import randomize
from qhyvit.stages import export as export_stage
from qhyvit.tflite import flatbuffer
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize
from qhyvit.work import FACTS, FLOAT, Work
from qhyvit_device.runner import TfliteFile
from tests._graphs import Builder
from tests._tiny import pictures

needs_onnx = pytest.mark.skipif(
    any(find_spec(m) is None for m in ("onnx", "onnxruntime", "onnx2pytorch")), reason="the extra onnx is not installed"
)


# --- a .tflite ---


def written(path, graph):
    path.write_bytes(serialize(graph))
    return path


def channels_last(ends=("MEAN",), seed=0):
    """[1, 4, 4, 3] -> logits [1, 6]; with other ends a map [1, 4, 4, 6]."""
    b = Builder(np.random.default_rng(seed))
    x = b.add("RELU", b.conv(b.input))
    for op in ends:
        x = b.add("MEAN", x, b.integers(1, 2), keep_dims=False) if op == "MEAN" else b.add(op, x)
    return b.graph(x)


def channels_first(last="MEAN", seed=0):
    """[1, 3, 4, 5] -> logits [1, 6], or a map [1, 6, 4, 5]."""
    b = Builder(np.random.default_rng(seed))
    b.tensors[0] = dataclasses.replace(b.tensors[0], shape=(1, 3, 4, 5))
    turned = b.add("TRANSPOSE", b.input, b.integers(0, 2, 3, 1))
    x = b.add("RELU", b.conv(turned))
    if last == "SOFTMAX":
        x = b.add("SOFTMAX", x)
    x = b.add("MEAN", x, b.integers(1, 2), keep_dims=False) if last == "MEAN" else b.add(
        "TRANSPOSE", x, b.integers(0, 3, 1, 2)
    )  # fmt: skip
    return b.graph(x)


def outputs(data, x):
    return [torch.from_numpy(y) for y in TfliteFile(data).invoke(x)]


def test_a_file_with_channels_last_is_taken_as_it_is(tmp_path):
    path = written(tmp_path / "net.tflite", channels_last())
    source = open_source(str(path))
    assert (source.shape, source.classes, source.weights) == ((4, 4, 3), 6, "net.tflite")
    made = export(source)
    assert made.facts["weights"] == "net.tflite"
    assert made.facts["float_error"] < 1e-6
    assert [n.op for n in read(made.tflite).nodes] == ["CONV_2D", "RELU", "MEAN"]


def test_a_file_with_channels_first_takes_images_with_channels_last(tmp_path):
    path = written(tmp_path / "net.tflite", channels_first())
    made = export(open_source(str(path)))
    graph, x = read(made.tflite), np.random.default_rng(1).random((1, 4, 5, 3), np.float32)
    assert [n.op for n in graph.nodes] == ["CONV_2D", "RELU", "MEAN"]  # no TRANSPOSE is left
    assert graph.tensors[graph.inputs[0]].shape == (1, 4, 5, 3)
    (before,), (after,) = outputs(path.read_bytes(), x.transpose(0, 3, 1, 2)), outputs(made.tflite, x)
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("first", "last"), [(True, "RELU"), (True, "SOFTMAX"), (False, "RELU"), (False, "SOFTMAX")])
def test_a_map_has_its_channels_last_and_no_softmax(tmp_path, first, last):
    graph = channels_first(last) if first else channels_last(() if last == "RELU" else (last,))
    path = written(tmp_path / "net.tflite", graph)
    source = open_source(str(path))
    made = export(source)
    assert (source.task.name, source.classes) == ("segment", 6)
    assert made.facts["cut"] == ("SOFTMAX" if last == "SOFTMAX" else "")
    x = np.random.default_rng(1).random((1, *source.shape), np.float32)
    (before,) = outputs(path.read_bytes(), x.transpose(0, 3, 1, 2) if first else x)
    (after,) = outputs(made.tflite, x)
    assert after.shape == (1, *source.shape[:2], 6)
    expected = before.permute(0, 2, 3, 1) if first else before
    torch.testing.assert_close(after.softmax(-1) if last == "SOFTMAX" else after, expected, atol=1e-6, rtol=1e-5)


def test_a_map_of_another_task_keeps_the_order_of_its_axes(tmp_path):
    path = written(tmp_path / "net.tflite", channels_first("RELU"))
    made = export(open_source(str(path), task="raw"))
    assert made.facts["outputs"] == [{"name": "output", "shape": [6, 4, 5]}]


@pytest.mark.parametrize("graph", [channels_last(), channels_first()])
def test_blue_first_goes_into_the_first_convolution(tmp_path, graph):
    path = written(tmp_path / "net.tflite", graph)
    source = open_source(str(path), pixels=Pixels(channel_order="BGR"))
    made = export(source)
    x = np.random.default_rng(1).random((1, *source.shape), np.float32)
    given = x[..., ::-1] if source.maps_last else x[..., ::-1].transpose(0, 3, 1, 2)
    torch.testing.assert_close(outputs(made.tflite, x)[0], outputs(path.read_bytes(), np.ascontiguousarray(given))[0])
    assert not {"REVERSE_V2", "GATHER", "SLICE"} & {n.op for n in read(made.tflite).nodes}


def edited(path, graph, edit):
    model = flatbuffer.load_model(serialize(graph))
    edit(model, model.subgraphs[0])
    path.write_bytes(flatbuffer.pack(model))
    return path


def test_a_batch_of_any_size_becomes_one(tmp_path):
    def any_batch(model, subgraph):
        subgraph.tensors[subgraph.inputs[0]].shapeSignature = [-1, 4, 4, 3]

    path = edited(tmp_path / "net.tflite", channels_last(), any_batch)
    source = open_source(str(path))
    assert source.shape == (4, 4, 3)
    assert export(source).facts["float_error"] < 1e-6


def test_a_batch_of_eight_becomes_one_where_the_graph_allows_it(tmp_path):
    def eight(model, subgraph):
        for tensor in subgraph.tensors:
            if tensor.buffer == 0:
                tensor.shape = [8, *tensor.shape[1:]]

    source = open_source(str(edited(tmp_path / "net.tflite", channels_last(), eight)))
    made = export(source)
    assert [t.shape[0] for t in read(made.tflite).activations()] == [1, 1, 1, 1]


def test_sides_of_any_length_are_those_that_are_asked_for(tmp_path):
    def any_sides(model, subgraph):
        subgraph.tensors[subgraph.inputs[0]].shapeSignature = [1, -1, -1, 3]

    path = str(edited(tmp_path / "net.tflite", channels_last(), any_sides))
    with pytest.raises(UsageError, match="give --input-size"):
        open_source(path)
    made = export(open_source(path, size=(8, 12)))
    assert made.facts["input_shape"] == [8, 12, 3]
    with pytest.raises(UsageError, match="input-size says 8x8"):
        open_source(str(written(tmp_path / "fixed.tflite", channels_last())), size=8)


def refusal(path, **options):
    with pytest.raises(QhyvitError) as caught:
        export(open_source(str(path), **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_a_file_cannot_be_is_refused_by_name(tmp_path):
    path = tmp_path / "net.tflite"
    b = Builder(np.random.default_rng(0))
    graph = b.graph(b.conv(b.input))
    mask = dataclasses.replace(graph.tensors[0], id=99, name="mask")
    written(path, dataclasses.replace(graph, tensors={**graph.tensors, 99: mask}, inputs=(0, 99)))
    assert "takes 2 inputs (input.0, mask); export a model that takes the image alone" in refusal(path)

    quantized = dataclasses.replace(graph.tensors[1], quantization=Quantization((0.1,)), dtype="INT8",
                                    data=graph.tensors[1].data.astype(np.int8))  # fmt: skip
    written(path, dataclasses.replace(graph, tensors={**graph.tensors, 1: quantized}))
    assert "is quantized already (constant.1 is INT8): give the float file" in refusal(path)

    def whole_numbers(model, subgraph):
        subgraph.tensors[subgraph.inputs[0]].type = flatbuffer.TENSOR_TYPE_CODE["INT32"]

    assert "input 'input.0' is INT32: an image is float32" in refusal(edited(path, graph, whole_numbers))

    def custom(model, subgraph):
        model.operatorCodes[0].builtinCode = flatbuffer.BUILTIN_CODE["CUSTOM"]
        model.operatorCodes[0].deprecatedBuiltinCode = 32
        model.operatorCodes[0].customCode = "FlexErf"

    said = refusal(edited(path, channels_last(), custom))
    assert "1 x custom FlexErf" in said
    assert "TFLITE_BUILTINS alone" in said
    path.write_bytes(b"none")
    assert "model" in refusal(path)


@pytest.mark.parametrize(("dims", "last", "found"), [
    ([1, 96, 64, 3], True, ((96, 64, 3), True)), ([1, 3, 96, 64], True, ((96, 64, 3), False)),
    ([None, 3, 16, 16], True, ((16, 16, 3), False)), ([1, 16, 16, 3], False, ((16, 16, 3), True)),
    ([1, 4, 4, 4], True, ((4, 4, 4), True)), ([1, 4, 4, 4], False, ((4, 4, 4), False)),
    ([1, None, None, 1], False, ((32, 48, 1), True)), ([1, 3, None, None], True, ((32, 48, 3), False)),
])  # fmt: skip
def test_channels_are_where_there_are_fewest(dims, last, found):
    assert image_shape("net", "x", dims, (32, 48) if None in dims[1:] else None, last=last) == found


@pytest.mark.parametrize(("dims", "words"), [
    ([1, 224, 224], "an image is"), ([1, 64, 64, 64], "1 to 16 channels"), ([], "an image is"),
])  # fmt: skip
def test_what_is_no_image_is_refused(dims, words):
    with pytest.raises(ExportError, match=words):
        image_shape("net", "x", dims, None, last=True)


# --- the three of them ---


class Small(nn.Module):
    """[B, 3, 16, 16] -> [B, 4]: a norm over the whole map, a stream, a mean."""

    def __init__(self, end=None):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mix, self.head = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)
        self.norm, self.end = nn.GroupNorm(1, 8), end or nn.Identity()

    def forward(self, pixels):
        x = F.silu(self.stem(pixels))
        x = x + self.mix(self.norm(x))
        return self.end(self.head(x.mean((2, 3))))


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


# --- names, settings, resumed builds ---


def test_the_list_of_endings_is_that_of_the_shelf():
    assert sorted(files.MODEL_FILES) == sorted(f".{name}" for name in all_importers())


def test_a_file_has_its_weights_inside_and_has_to_be_there(tmp_path):
    path = written(tmp_path / "net.tflite", channels_last())
    for options in ({"weights": path}, {"random_weights": True}):
        with pytest.raises(UsageError, match="has its weights inside"):
            open_source(str(path), **options)
    with pytest.raises(UsageError, match=r"9 classes asked for, but net\.tflite gives 6"):
        open_source(str(path), classes=9)
    with pytest.raises(InputError, match=r"none\.onnx does not exist"):
        open_source(str(tmp_path / "none.onnx"))


def test_an_export_is_made_again_when_the_file_changed(tmp_path):
    path, work = written(tmp_path / "net.tflite", channels_last()), Work(tmp_path / "work")
    export_stage(work, ModelConfig(str(path)))
    first = work.read(FLOAT)
    assert work.json(FACTS)["weights_sha256"] == files.sha256(path.read_bytes())
    lines = []
    export_stage(Work(tmp_path / "work", log=lines.append), ModelConfig(str(path)))
    assert lines == ["export: unchanged, kept"]
    written(path, channels_last(seed=1))
    export_stage(work, ModelConfig(str(path)))
    assert work.read(FLOAT) != first


def test_a_file_in_a_toml_is_seen_from_there(tmp_path):
    (tmp_path / "build.toml").write_text('[model]\nname = "nets/a.onnx"\n[data]\nimages = "train"\n')
    config = BuildConfig.from_toml(tmp_path / "build.toml")
    assert config.model.name == str(tmp_path / "nets" / "a.onnx")


@pytest.mark.parametrize(("given", "words"), [
    (("--tflite", "a.onnx"), "--tflite takes a file that ends in .tflite, got 'a.onnx'"),
    (("--onnx", "a.onnx", "--pt2", "a.pt2"), "either a model's name or --model-py"),
    (("--pt2", "none.pt2", "--images", "train", "--out", "o"), "none.pt2 does not exist"),
])  # fmt: skip
def test_the_command_line_says_what_is_wrong(given, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "train", 1)
    with pytest.raises(SystemExit) as ended:
        cli.main(["build", *given])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in said
    assert "Traceback" not in said


def test_a_file_is_built_and_proven_from_the_command_line_and_from_python(tmp_path, capsys):
    images, path = tmp_path / "train", written(tmp_path / "net.tflite", channels_first())
    pictures(images, 12)
    given = ["--count", "4", "--method", "minmax", "--min-agreement", "0.1", "--images", images]
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, ("build", "--tflite", path, *given, "--out", tmp_path / "a", "--json"))])
    out, err = capsys.readouterr()
    assert ended.value.code == 0, err
    assert json.loads(out)["passed"]
    built = qhyvit.build(path, images, tmp_path / "b", count=4, method="minmax", min_agreement=0.1)
    assert built.verdict["passed"]
    assert (tmp_path / "a" / "model.tflite").read_bytes() == (tmp_path / "b" / "model.tflite").read_bytes()
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["model"] == "net.tflite"


# --- modules of transformers ---


@pytest.mark.parametrize(("kernel", "stride", "padding"), [
    (2, 2, 0), ((2, 4), (2, 4), 0), (2, 1, 0), (2, 2, 1), (3, 3, 0),
])  # fmt: skip
def test_patches_side_by_side_are_axes_that_move(kernel, stride, padding):
    x = torch.rand(1, 3, 8, 8)
    expected = F.unfold(x, kernel, stride=stride, padding=padding)
    back = F.fold(expected, (8, 8), kernel, stride=stride, padding=padding)
    with TorchForms():
        assert torch.equal(F.unfold(x, kernel, stride=stride, padding=padding), expected)
        assert torch.equal(F.fold(expected, (8, 8), kernel, stride=stride, padding=padding), back)


@pytest.mark.parametrize("kind", ["MobileViTForImageClassification", "MobileViTV2ForSemanticSegmentation", "ViTModel"])
def test_modules_of_transformers(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 16, 24, 32]}
    config = {
        "MobileViTForImageClassification": lambda: transformers.MobileViTConfig(
            **sizes, num_attention_heads=2, num_labels=5, output_stride=32, last_hidden_state_size=32
        ),
        "MobileViTV2ForSemanticSegmentation": lambda: transformers.MobileViTV2Config(
            image_size=64, width_multiplier=0.25, n_attn_blocks=[1, 1, 1], num_labels=5,
            base_attn_unit_dims=[32, 32, 32], aspp_out_channels=16,
        ),
        "ViTModel": lambda: transformers.ViTConfig(
            image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16,
        ),
    }[kind]()  # fmt: skip
    module = getattr(transformers, kind)(config).eval()
    randomize(module, 0)
    source = open_source(module)
    assert source.shape == (config.image_size, config.image_size, 3)
    made = export(source)
    assert source.rewrite is with_equivalents
    names = {"ViTModel": ["last_hidden_state", "pooler_output"]}.get(kind, ["logits"])
    tasks = {"ViTModel": "raw", "MobileViTForImageClassification": "classify"}
    assert [o["name"] for o in made.facts["outputs"]] == names
    assert made.facts["task"] == tasks.get(kind, "segment")


class Tied(Small):
    """One tensor under two names, beside nothing and one that is nested."""

    def forward(self, pixels):
        logits = super().forward(pixels)
        return {"logits": logits, "loss": None, "again": logits, "more": (logits * 2, None)}


def test_outputs_may_be_tied_nested_or_nothing():
    module = Tied()
    module.preprocess = {"input_size": 16}
    made = export(open_source(module))
    assert [o["name"] for o in made.facts["outputs"]] == ["logits", "again", "more.output_0"]
    x = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    logits, again, twice = outputs(made.tflite, x)
    assert torch.equal(logits, again)
    torch.testing.assert_close(twice, 2 * logits)
