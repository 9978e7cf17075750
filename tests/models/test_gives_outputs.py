"""Outputs of every form: tuples, dictionaries, nested ones, lone numbers, objects such as those of transformers."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, fields

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qhyvit.errors import ExportError
from qhyvit.models.shared.export import export
from qhyvit.models.shared.outputs import GivesOutputs, output_shapes, rows_of, tensors_of
from qhyvit.models.shared.source import open_source
from qhyvit.tflite.read import read
from qhyvit_device.runner import TfliteFile

A, B, C = torch.rand(1, 4), torch.rand(1, 3, 5, 6), torch.rand(1, 2)
Pair = namedtuple("Pair", "first second")


class ModelOutput(OrderedDict):
    """As transformers makes them: an ordered dictionary of the fields that are not None, which are attributes too."""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                self[field.name] = value


@dataclass
class ImageClassifierOutput(ModelOutput):
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (A, ["output"]),
        (torch.tensor(3.0), ["value"]),
        (torch.tensor([3.0]), ["value"]),
        (torch.rand(1, 1), ["output"]),
        ((A, B), ["output_0", "output_1"]),
        ([A], ["output_0"]),
        (Pair(A, B), ["output_0", "output_1"]),
        ({"map": B, "logits": A}, ["map", "logits"]),
        ({0: A, 1: B}, ["0", "1"]),
        ({"boxes": [A, B], "label": {"hard": C, "soft": (A,)}},
         ["boxes.output_0", "boxes.output_1", "label.hard", "label.soft.output_0"]),
        ((A, None, [None, (C, "text")]), ["output_0", "output_2.output_1.output_0"]),
        (ImageClassifierOutput(logits=A), ["logits"]),
        (ImageClassifierOutput(logits=A, hidden_states=(B, B)), ["logits", "hidden_states.output_0",
                                                                 "hidden_states.output_1"]),
        (None, []), ((), []), ({"cache": None}, []), (3.0, []),
    ],
)  # fmt: skip
def test_tensors_have_the_names_of_where_they_are(given, names):
    assert list(tensors_of(given)) == names


def test_tensors_are_those_that_were_given():
    found = tensors_of({"a": A, "b": (B, [C]), "n": torch.tensor(2.0)})
    assert found["a"] is A
    assert found["b.output_0"] is B
    assert found["b.output_1.output_0"] is C
    assert torch.equal(found["n.value"], torch.tensor([[2.0]]))
    assert torch.equal(rows_of([A, B]), torch.cat([A[0], B[0].reshape(-1)])[None])


class Gives(nn.Module):
    """A stem and a head; ``form`` makes the output of map and logits."""

    def __init__(self, form):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head, self.form = nn.Conv2d(3, 5, 4, 4), nn.Linear(5, 4), form
        self.preprocess = {"input_size": 32}

    def forward(self, x):
        y = torch.relu(self.stem(x))
        return self.form(y, self.head(y.mean((2, 3))))


@pytest.mark.parametrize("channels_last", [False, True])
def test_maps_are_turned_where_channels_come_last(channels_last):
    net = Gives(lambda y, z: {"y": y, "deep": (z, y.flatten(2))})
    x = torch.rand(1, 3, 16, 12)
    found = GivesOutputs(net, channels_last=channels_last)(x)
    y, z = torch.relu(net.stem(x)), net.head(torch.relu(net.stem(x)).mean((2, 3)))
    expected = y.permute(0, 2, 3, 1) if channels_last else y, z, y.flatten(2)
    assert len(found) == 3
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


FORMS = {
    "tuple": (lambda y, z: (z, y), None, {"output_0": (4,), "output_1": (5, 8, 8)}),
    "dictionary": (lambda y, z: {"z": z, "y": y, "none": None}, None, {"z": (4,), "y": (5, 8, 8)}),
    "nested": (lambda y, z: [{"z": z}, (y.flatten(2),)], None, {"output_0.z": (4,), "output_1.output_0": (5, 64)}),
    "transformers": (lambda y, z: ImageClassifierOutput(logits=z), None, {"logits": (4,)}),
    "map": (lambda y, z: (y,), None, {"output_0": (8, 8, 5)}),
    "number": (lambda y, z: z.sum(), None, {"value": (1,)}),
    "map as it is": (lambda y, z: y, "raw", {"output": (5, 8, 8)}),
    "same twice": (lambda y, z: (z, z), None, {"output_0": (4,), "output_1": (4,)}),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_gives_what_the_module_does_in_its_order(name):
    form, task, shapes = FORMS[name]
    net = Gives(form).eval()
    made = export(open_source(net, task=task))
    assert {o["name"]: tuple(o["shape"]) for o in made.facts["outputs"]} == shapes
    graph = read(made.tflite)
    assert [graph.tensors[t].shape[1:] for t in graph.outputs] == list(shapes.values())
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    found = TfliteFile(made.tflite).invoke(x[0].permute(1, 2, 0).numpy())
    with torch.no_grad():
        expected = [*tensors_of(net(x)).values()]
    for y, t, shape in zip(found, expected, shapes.values(), strict=True):
        turned = t.permute(0, 2, 3, 1) if t.dim() == 4 and tuple(t.shape[1:]) != shape else t
        torch.testing.assert_close(torch.from_numpy(y).reshape(1, *shape), turned, atol=1e-5, rtol=1e-4)


class Segments(Gives):
    """A map of five classes over the whole image, and what ``end`` makes of it."""

    def __init__(self, end):
        super().__init__(lambda y, z: end(F.interpolate(y - 1.0, scale_factor=2.0, mode="bilinear")))


@pytest.mark.parametrize(("end", "cut", "applied"), [
    (lambda y: y, "", lambda y: y),
    (lambda y: y.softmax(1), "SOFTMAX", lambda y: y.softmax(-1)),
    (lambda y: y.log_softmax(1), "LOG_SOFTMAX", lambda y: y.log_softmax(-1)),
    (lambda y: y[:, :1].sigmoid(), "LOGISTIC", torch.sigmoid),
])  # fmt: skip
@pytest.mark.parametrize("task", ["segment", "raw"])
def test_what_a_map_ends_in_is_cut_for_a_segmentation_alone(end, cut, applied, task):
    net = Segments(end).eval()
    made = export(open_source(net, task=task))
    assert made.facts["cut"] == (cut if task == "segment" else "")
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    (found,) = TfliteFile(made.tflite).invoke(x[0].permute(1, 2, 0).numpy())
    with torch.no_grad():
        expected = net(x)
    found = torch.from_numpy(found)
    shown = applied(found).permute(0, 3, 1, 2) if task == "segment" else found
    torch.testing.assert_close(shown.reshape(expected.shape), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("given", [[], {"a": None}, (A, A.long()), (A, torch.rand(2, 4)), torch.rand(1, 2, 2, 2, 2)])
def test_what_is_no_output_is_refused_in_a_line(given):
    with pytest.raises(ExportError, match="every output has to be a tensor of floats") as caught:
        output_shapes("it", Gives(lambda y, z: given), (32, 32, 3))
    assert "\n" not in str(caught.value)
