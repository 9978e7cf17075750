"""Models in .tflite files, whichever order their axes have: the float file computes what the given one does."""

import dataclasses

import numpy as np
import pytest
import torch

from qhyvit.errors import UsageError
from qhyvit.graph.ir import Quantization
from qhyvit.models.shared.export import export
from qhyvit.models.shared.input_facts import Pixels
from qhyvit.models.shared.source import open_source
from qhyvit.tflite import flatbuffer
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize
from tests._graphs import Builder
from tests._model_files import channels_first, channels_last, outputs, refusal, written


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
