"""What a module says of its input is taken in every usual way of writing, and anything else is refused in one line."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from qhyvit.errors import ExportError, UsageError
from qhyvit.models.shared.export import export
from qhyvit.models.shared.input_facts import Pixels, input_facts
from qhyvit.models.shared.source import open_source
from qhyvit.models.shared.timm_models import import_timm
from qhyvit.tflite.read import read

timm = import_timm()


class Net(nn.Module):
    """Logits of five classes for images of any size."""

    def __init__(self, channels=3, **said):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(channels, 8, 4, 4), nn.Linear(8, 5)
        if said:
            self.preprocess = said

    def forward(self, x):
        return self.head(torch.relu(self.stem(x)).mean((2, 3)))


def facts(size=None, channels=3, given=None, **said):
    return input_facts("Net", Net(channels, **said), size and (size, size), given)


def refusal(size=None, channels=3, given=None, **said):
    with pytest.raises(UsageError) as caught:
        facts(size, channels, given, **said)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("said", [64, (64, 64), [3, 64, 64], (3, 64, 64), np.int64(64), torch.tensor([3, 64, 64])])
def test_an_input_size_in_any_usual_form(said):
    assert facts(input_size=said).shape == (64, 64, 3)


@pytest.mark.parametrize("said", [(64, 128), [3, 64, 128], np.array([64, 128])])
def test_height_comes_before_width(said):
    assert facts(input_size=said).shape == (64, 128, 3)
    assert facts(96, input_size=said).shape == (96, 96, 3)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((64, 64, 3), "64 channels first; give (C, H, W), C up to 16"),
        ((17, 64, 64), "17 channels first"),
        ((0, 64, 64), "whole number, 1 to 4096"),
        ((3, 3, 64, 64), "4 numbers"),
        (True, "input_size is True, not a number"),
        ("64", "input_size is '64', not a number"),
        (64.5, "whole number"),
        (0, "whole number, 1 to 4096"),
        (10**9, "1 to 4096"),
        (None, "input_size is None"),
    ],
)
def test_other_input_sizes_are_refused(said, words):
    assert words in refusal(input_size=said)


def test_a_rectangle_in_timms_configuration_is_taken_and_a_size_that_is_asked_for_wins():
    net = timm.create_model("mobilenetv3_small_050", pretrained_cfg_overlay={"input_size": (3, 256, 128)})
    found = input_facts("it", net, None)
    assert (found.shape, found.preprocess["resize"]) == ((256, 128, 3), int(128 / net.pretrained_cfg["crop_pct"]))
    assert input_facts("it", net, (128, 96)).shape == (128, 96, 3)


def test_timms_configuration_says_three_channels_whatever_it_was_made_with():
    net = timm.create_model("mobilenetv3_small_050", in_chans=1)
    assert net.pretrained_cfg["input_size"][0] == len(net.pretrained_cfg["mean"]) == 3
    found = input_facts("it", net.eval(), (64, 64))
    assert (found.shape, found.preprocess["mean"], found.preprocess["std"]) == ((64, 64, 1), (0.449,), (0.226,))
    assert found.notes == ("it says no mean: (0.449) is taken", "it says no std: (0.226) is taken")


@pytest.mark.parametrize("value", [0.5, (0.5,), [0.5] * 3, np.full(3, 0.5, np.float32), torch.full((3,), 0.5)])
def test_mean_and_std_in_any_usual_form(value):
    found = facts(input_size=64, mean=value, std=value).preprocess
    assert (found["mean"], found["std"]) == ((0.5,) * 3, (0.5,) * 3)
    assert all(type(v) is float for v in found["mean"] + found["std"])


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        (0.0, 255),
        ((123.675, 116.28, 103.53), 1.0),
        (127.5, 127.5),
    ],
)
@pytest.mark.parametrize("by_hand", [True, False])
def test_values_of_bytes_are_mended_and_a_line_says_so(mean, std, by_hand):
    """(255 x - m) / s = (x - m / 255) / (s / 255)."""
    given = Pixels(np.broadcast_to(mean, 3).tolist(), np.broadcast_to(std, 3).tolist()) if by_hand else None
    said = facts(input_size=64, given=given, **({} if by_hand else {"mean": mean, "std": std}))
    x = np.linspace(0, 1, 7)[:, None]
    found = (x - np.array(said.preprocess["mean"])) / np.array(said.preprocess["std"])
    np.testing.assert_allclose(found, (255 * x - np.broadcast_to(mean, 3)) / np.broadcast_to(std, 3), atol=1e-9)
    (line,) = said.notes
    assert line.startswith("--mean and --std: " if by_hand else "Net.preprocess: ")
    assert "are those of values in 0..255: a 255th is taken, mean (" in line


@pytest.mark.parametrize(("mean", "std"), [((0.485,) * 3, (0.229,) * 3), (0.0, 1.0), ((0.5, 0.0, 1.0), 1 / 255)])
def test_values_of_one_are_taken_as_they_are(mean, std):
    said = facts(input_size=64, mean=mean, std=std)
    assert said.notes == ()
    assert said.preprocess["mean"] == tuple(np.broadcast_to(mean, 3))
    assert said.preprocess["std"] == tuple(np.broadcast_to(std, 3))


@pytest.mark.parametrize(("mean", "std", "words"), [
    (123.675, 0.229, "have two units"), (0.485, 58.4, "have two units"), (0.485, 255, "have two units"),
    (0.485 / 255, 0.229 / 255, "divided by 255 twice"), (32768, 32768, "of values beyond 0..255"),
])  # fmt: skip
def test_a_mean_and_a_std_that_no_pixels_have_are_refused(mean, std, words):
    assert words in refusal(input_size=64, mean=mean, std=std)
    assert words in refusal(64, given=Pixels((mean,), (std,)))


def test_what_the_user_says_goes_before_what_the_module_says():
    said = {"input_size": 64, "mean": 0.5, "std": 0.25, "channel_order": "BGR"}
    assert facts(**said, given=Pixels(mean=(0.1, 0.2, 0.3))).preprocess["mean"] == (0.3, 0.2, 0.1)
    assert facts(**said, given=Pixels(std=(0.75,))).preprocess["std"] == (0.75,) * 3
    found = facts(**said, given=Pixels((0.1, 0.2, 0.3), None, "RGB"))
    assert (found.is_bgr, found.preprocess["mean"]) == (False, (0.1, 0.2, 0.3))


def test_imagenets_values_are_no_bgr_ones():
    found = facts(input_size=64, channel_order="BGR")
    assert (found.is_bgr, found.preprocess["mean"]) == (True, (0.485, 0.456, 0.406))
    assert "GBR" in refusal(input_size=64, channel_order="GBR")
    assert "takes 1 channels; the order BGR is of three" in refusal(input_size=(1, 64, 64), channel_order="BGR")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mean", (0.5, 0.5), "mean has 2 values"),
        ("std", (), "std has 0 values"),
        ("mean", (0.5, "a", 0.5), "mean is 'a', not a number"),
        ("mean", None, "mean is None, not a number"),
        ("mean", (True, 0, 0), "mean is True, not a number"),
        ("mean", float("nan"), "mean is nan, not a number"),
        ("std", (0.2, 0.0, 0.2), "std is 0.0; it has to be above 0"),
        ("std", -1, "above 0"),
        ("std", [[0.5], [0.5], [0.5]], "not a number"),
        ("resize", True, "resize is True, not a number"),
        ("resize", -3, "above 0"),
        ("resize", "256", "not a number"),
        ("resize", 10**6, "1 to 8192"),
        ("interpolation", "cubic", "interpolation 'cubic' is not known; known: nearest, bilinear"),
        ("interpolation", 3, "interpolation 3 is not known"),
        ("crop", 3, "has the key 'crop'; it may have"),
    ],
)
def test_other_values_are_refused(key, value, words):
    assert words in refusal(**{"input_size": 64, key: value})


def test_a_key_that_is_no_text_is_refused():
    net = Net()
    net.preprocess = {"input_size": 64, 3: 4, None: 5}
    with pytest.raises(UsageError, match="has the key '3'"):
        input_facts("Net", net, None)


class Method(Net):
    """Has a method under the name that we read."""

    def preprocess(self, x):
        return x / 255


@pytest.mark.parametrize("size", [None, 64])
def test_a_method_named_preprocess_is_refused(size):
    with pytest.raises(UsageError, match=r"preprocess is a method: .* dictionary with input_size"):
        open_source(Method(), size=size)


@pytest.mark.parametrize("value", [nn.Identity(), [64], "crop", SimpleNamespace(input_size=64)])
@pytest.mark.parametrize("key", ["preprocess", "pretrained_cfg"])
def test_what_is_no_dictionary_is_refused(key, value):
    net = Net()
    setattr(net, key, value)
    with pytest.raises(UsageError, match=f"{key} is a {type(value).__name__}"):
        input_facts("Net", net, (64, 64))


def test_resize_follows_another_size():
    assert facts(96, input_size=64, resize=80).preprocess["resize"] == 120
    assert facts(96, input_size=64).preprocess["resize"] == round(96 / 0.875)
    config = timm.create_model("mobilenetv3_small_050").pretrained_cfg
    found = input_facts("it", timm.create_model("mobilenetv3_small_050"), None)
    assert found.preprocess["resize"] == int(config["input_size"][-1] / config["crop_pct"])


@pytest.mark.parametrize("channels", [1, 2, 5, 16])
def test_channels_are_those_of_the_first_convolution_or_said(channels):
    assert open_source(Net(channels), size=64).shape == (64, 64, channels)
    assert open_source(Net(channels, input_size=(channels, 32, 64))).shape == (32, 64, channels)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(channels * 64 * 32, 4))
    assert open_source(flat, size=(64, 32)).shape == (64, 32, channels)
    with pytest.raises(ExportError, match=rf"takes {channels} channels?: its first convolution, stem.*says 7"):
        open_source(Net(channels, input_size=(7, 64, 64)))


def test_a_gray_input_that_a_module_repeats_is_one_channel_where_it_says_so():
    class Repeats(Net):
        def forward(self, x):
            return super().forward(x.expand(-1, 3, -1, -1))

    assert open_source(Repeats(input_size=(1, 32, 32))).shape == (32, 32, 1)


def test_too_many_channels_and_counts_of_values_are_refused():
    with pytest.raises(UsageError, match="first convolution takes 17 channels; an input has 1 to 16"):
        open_source(Net(17), size=64)
    assert "mean has 3 values; give 5, or one for all" in refusal(channels=5, input_size=64, mean=(0.1, 0.2, 0.3))
    assert "--std has 2 values; give 3, or one" in refusal(64, given=Pixels(std=(1.0, 2.0)))


class Several(nn.Module):
    """Takes more than images."""

    def forward(self, image, mask, *, scale, gain=1.0):
        return (image * mask * scale).mean((2, 3))


def test_several_inputs_are_refused_by_name():
    with pytest.raises(ExportError, match=r"^Several takes 3 inputs \(image, mask, scale\); a file has one") as caught:
        open_source(Several(), size=64)
    assert "\n" not in str(caught.value)


def test_blue_first_goes_into_the_first_convolution():
    """The same file, op by op, as one of the convolution whose weights are turned by hand; red comes first in both."""
    net, turned = Net(input_size=32, channel_order="BGR"), Net(input_size=32)
    turned.stem.weight.data = net.stem.weight.data.flip(1)
    sources = [open_source(net), open_source(turned)]
    graphs = [read(export(source).tflite) for source in sources]
    assert [n.op for n in graphs[0].nodes] == [n.op for n in graphs[1].nodes]
    weights = [g.constant(next(n for n in g.nodes if n.op == "CONV_2D").inputs[1]) for g in graphs]
    assert np.array_equal(*weights)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert torch.equal(sources[0].reference(x), net.eval()(x.flip(1)))


@pytest.mark.parametrize("size", [0, -1, True, 10**6])
def test_sizes_and_class_counts_that_are_none_are_refused(size):
    with pytest.raises(UsageError, match="the input size is"):
        open_source(Net(), size=size)
    if size is not True and size < 1:
        with pytest.raises(UsageError, match="number of classes is"):
            open_source("mobilevitv2_050", classes=size)
