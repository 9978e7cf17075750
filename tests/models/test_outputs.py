"""What a module gives: heads, softmaxes at the end, values that are not finite, state and randomness."""

import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from qhyvit.errors import ExportError
from qhyvit.models.shared.export import export
from qhyvit.models.shared.float_error import float_error
from qhyvit.models.shared.outputs import check_values, gives_probabilities
from qhyvit.models.shared.source import open_source
from qhyvit.tflite.read import read

SHAPE = 32, 32, 3


class Net(nn.Module):
    """Logits [1, classes] for [1, 3, 32, 32]; ``mid`` works on maps, ``end`` on logits."""

    def __init__(self, mid=None, end=None, classes=6):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mid, self.head = nn.Conv2d(3, 8, 4, 4), mid or nn.Identity(), nn.Linear(8, classes)
        self.end = end or (lambda z: z)
        self.preprocess = {"input_size": 32}

    def forward(self, x):
        return self.end(self.head(self.mid(torch.relu(self.stem(x))).mean((2, 3))))


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def logits_of(data, x):
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.permute(0, 2, 3, 1).numpy())
    interpreter.invoke()
    return torch.from_numpy(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def refusal(net, kind=ExportError):
    with pytest.raises(kind) as caught:
        export(open_source(net))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("end", "shown", "facts"),
    [
        (nn.Softmax(1), lambda z: z.softmax(1), ("classify", "SOFTMAX")),
        (lambda z: F.softmax(z / 3, dim=-1), lambda z: z.softmax(1), ("classify", "SOFTMAX")),
        (lambda z: F.log_softmax(z[:, None], -1).flatten(1), lambda z: z.log_softmax(1), ("classify", "LOG_SOFTMAX")),
        (torch.sigmoid, torch.sigmoid, ("multilabel", "LOGISTIC")),
        (lambda z: z[:, :1].sigmoid(), torch.sigmoid, ("multilabel", "LOGISTIC")),
    ],
)
def test_what_the_task_applies_is_cut_and_of_the_file_it_gives_the_modules_output(end, shown, facts):
    net = Net(end=end).eval()
    made = export(open_source(net))
    assert (made.facts["task"], made.facts["cut"]) == facts
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    found = logits_of(made.tflite, x)
    with torch.no_grad():
        torch.testing.assert_close(shown(found), net(x), atol=1e-6, rtol=1e-5)
        assert not torch.allclose(found, net(x), atol=1e-2)


def test_logits_are_no_probabilities_and_a_softmax_within_stays():
    made = export(open_source(Net(mid=nn.Softmax(1))))
    assert (made.facts["task"], made.facts["cut"]) == ("classify", "")
    assert not gives_probabilities(Net().eval(), (32, 32, 3))
    assert gives_probabilities(Net(end=nn.Softmax(1)).eval(), (32, 32, 3))


@pytest.mark.parametrize("task", ["embed", "regress", "raw", "multilabel"])
@pytest.mark.parametrize(("end", "op"), [(nn.Softmax(1), "SOFTMAX"), (torch.sigmoid, "LOGISTIC")])
def test_what_the_task_does_not_apply_stays_in_the_file(task, end, op):
    net = Net(end=end).eval()
    made = export(open_source(net, task=task))
    cut = task == "multilabel" and op == "LOGISTIC"
    assert (made.facts["task"], made.facts["cut"]) == (task, op if cut else "")
    assert (op in [n.op for n in read(made.tflite).nodes]) is not cut
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = net.head(torch.relu(net.stem(x)).mean((2, 3))) if cut else net(x)
    torch.testing.assert_close(logits_of(made.tflite, x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("end", "task", "words"),
    [
        (torch.sigmoid, "classify", "ends in a sigmoid, one class apart from another: give --task multilabel"),
        (lambda z: (z.softmax(1) + (2 * z).softmax(1)) / 2, None, "gives probabilities, but ends in"),
        (lambda z: (z.softmax(1) + (2 * z).softmax(1)) / 2, "classify", "gives probabilities, but ends in"),
    ],
)
def test_other_ends_that_are_no_logits_are_refused(end, task, words):
    with pytest.raises(ExportError) as caught:
        export(open_source(Net(end=end), task=task))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("end", "task", "outputs"),
    [
        (lambda z: z[:, :1], "multilabel", {"output": (1, 1)}),
        (lambda z: (z, z[:, :2]), "raw", {"output_0": (1, 6), "output_1": (1, 2)}),
        (lambda z: {"logits": z, "cache": None}, "classify", {"logits": (1, 6)}),
        (lambda z: z[:, :, None, None], "segment", {"output": (1, 6, 1, 1)}),
        (lambda z: z[0, 0], "multilabel", {"value": (1, 1)}),
        (lambda z: z.reshape(1, 2, 3), "raw", {"output": (1, 2, 3)}),
    ],
)
def test_outputs_of_every_form_are_a_task(end, task, outputs):
    source = open_source(Net(end=end))
    assert (source.task.name, dict(source.outputs)) == (task, outputs)
    assert not source.task_is_asked


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda z: [], "gives a list of nothing; every output has to be a tensor of floats [1, ...], of rank 4 at most"),
        (lambda z: z[0], "gives [6]"),
        (lambda z: z.argmax(1, keepdim=True), "of torch.int64"),
        (lambda z: (z, z.argmax(1, keepdim=True)), "a tuple of [1, 6], [1, 1]; every output has to be"),
        (lambda z: z[..., None, None, None], "gives [1, 6, 1, 1, 1]"),
        (lambda z: None, "a NoneType"),
        (lambda z: torch.log(-z.abs()), "outputs that are not finite"),
        (lambda z: 0 * z, "the same outputs for every image"),
        (lambda z: z.softmax(0), "the same outputs for every image"),
    ],
)
def test_what_is_no_output_is_said(end, words):
    assert words in refusal(Net(end=end))


def test_one_class_of_a_zoo_model_is_a_yes_or_no():
    source = open_source("mobilevitv2_050", classes=1, random_weights=True)
    assert (source.task.name, source.classes, dict(source.outputs)) == ("multilabel", 1, {"output": (1, 1)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_named(value):
    net = Net()
    net.head.weight.data[0, 0] = value
    assert "head.weight has 1 values that are not finite" in refusal(net)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_buffer_that_is_not_finite_is_named(value):
    net = Net(nn.BatchNorm2d(8))
    net.mid.running_mean[3] = value
    assert "mid.running_mean has 1 values" in refusal(net)


class Average(Net):
    """Keeps a moving average in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(6))

    def forward(self, x):
        z = super().forward(x)
        self.average = 0.9 * self.average + 0.1 * z[0].detach()
        return z - self.average


class Counter(Net):
    """Keeps a number where no state dict sees it."""

    count = 0

    def forward(self, x):
        self.count += 1
        return super().forward(x) * self.count


class Stubborn(nn.Dropout):
    """Cannot be switched off."""

    def train(self, mode=True):
        return super().train(True)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Average(), "changes the buffer average"),
        (Counter(), "draws random numbers .* or keeps something"),
        (Net(Function(lambda x: F.dropout(x, 0.5))), "F.dropout needs training=self.training"),
        (Net(Function(lambda x: x + torch.rand_like(x))), "draws random numbers"),
        (Net(Stubborn()), "mid stays in training mode after eval"),
    ],
)
def test_outputs_that_are_not_the_images_alone_are_refused_with_the_cause(net, words):
    with pytest.raises(ExportError, match=f"other outputs when it sees the same image again: .*{words}"):
        export(open_source(net))


def test_state_that_no_output_depends_on_is_let_be():
    class Counting(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen = self.seen + 1
            return super().forward(x)

    check_values("it", Counting().eval(), (32, 32, 3))


@pytest.mark.parametrize(
    "change",
    [nn.Module.train, nn.Module.half, nn.Module.bfloat16, nn.Module.double, torch.compile, nn.DataParallel],
)
def test_modes_precisions_and_wrappers_are_taken_off(change):
    """The same network comes out: in eval mode and float32, as far as its parameters were exact there."""
    plain = Net(nn.Sequential(nn.BatchNorm2d(8), nn.Dropout(0.5))).half().float()
    given = change(Net(nn.Sequential(nn.BatchNorm2d(8), nn.Dropout(0.5))).half().float())
    found = open_source(given).reference
    assert not any(m.training for m in found.modules())
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    near = 2e-2 if change is nn.Module.bfloat16 else 1e-6
    with torch.no_grad():
        torch.testing.assert_close(found(x), plain.eval()(x), atol=near, rtol=0)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Net().to("meta"), "stem.weight has no values yet"),
        (Net(nn.LazyConv2d(8, 1)), "mid.weight has no values yet"),
        (torch.jit.trace(Net().eval(), torch.rand(1, 3, 32, 32)), "is TorchScript"),
    ],
)
def test_modules_without_values_or_code_are_refused(net, words):
    with pytest.raises(ExportError, match=words):
        open_source(net, size=32)


def test_layers_of_volumes_are_refused_by_name_where_they_run():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv3d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.inner(x[:, None])[:, 0]

    assert "has a Conv3d at mid.inner" in refusal(Net(Deep()))
    unused = Net()
    unused.extra = nn.Conv3d(1, 1, 3)
    assert open_source(unused).classes == 6


def test_the_float_error_is_that_of_the_worst_image():
    net = Net().eval()
    data = export(open_source(net)).tflite
    images = torch.randn(3, 32, 32, 3, generator=torch.Generator().manual_seed(1)).numpy()

    def wrong(x):
        y = net(x)
        return y + 0.5 * y.abs().max() * (x == torch.from_numpy(images[2]).permute(2, 0, 1)[None]).all()

    assert float_error(data, net, SHAPE, images=images) < 1e-5
    assert float_error(data, wrong, SHAPE, images=images) == pytest.approx(1 / 3, abs=0.2)
    assert float_error(data, wrong, SHAPE, images=images[:2]) < 1e-5
    assert not float_error(data, lambda x: net(x) * float("nan"), SHAPE, images=images) < 1
