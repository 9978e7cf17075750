"""What a module says of its input is taken in every usual way of writing, and anything else is refused in one line."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from qhyvit.errors import ExportError, UsageError
from qhyvit.models.shared.input_facts import input_facts
from qhyvit.models.shared.source import open_source
from qhyvit.models.shared.timm_models import import_timm

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


def facts(size=None, **said):
    return input_facts("Net", Net(**said), size)


def refusal(size=None, **said):
    with pytest.raises(UsageError) as caught:
        facts(size, **said)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("said", [64, (64, 64), [3, 64, 64], (3, 64, 64), np.int64(64), torch.tensor([3, 64, 64])])
def test_an_input_size_in_any_usual_form(said):
    assert facts(input_size=said).input_size == 64


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((64, 128), "64 x 128; only squares"),
        ((3, 256, 128), "256 x 128; only squares"),
        ((1, 64, 64), "1 channels first; images have three"),
        ((64, 64, 3), "64 channels first"),
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


def test_a_rectangle_in_timms_configuration_is_refused_and_a_size_that_is_asked_for_wins():
    net = timm.create_model("mobilenetv3_small_050", pretrained_cfg_overlay={"input_size": (3, 256, 128)})
    with pytest.raises(UsageError, match=r"pretrained_cfg: input_size is 256 x 128; only squares.*--input-size"):
        input_facts("it", net, None)
    assert input_facts("it", net, 128).input_size == 128


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
def test_values_of_bytes_are_refused_with_those_to_give(mean, std):
    line = refusal(input_size=64, mean=mean, std=std)
    mean, std = ([f"{v / 255:.4g}" for v in np.broadcast_to(x, 3)] for x in (mean, std))
    assert f"mean ({', '.join(mean)}), std ({', '.join(std)})" in line


def test_what_is_given_then_is_the_same_normalisation():
    """(255 x - m) / s = (x - m / 255) / (s / 255): the remedy's numbers are those of pixels in 0..1."""
    said = facts(input_size=64, mean=np.array([123.675, 116.28, 103.53]) / 255, std=1 / 255).preprocess
    x = np.linspace(0, 1, 7)[:, None]
    found = (x - np.array(said["mean"])) / np.array(said["std"])
    np.testing.assert_allclose(found, 255 * x - np.array([123.675, 116.28, 103.53]), atol=1e-9)


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
        input_facts("Net", net, 64)


def test_resize_follows_another_size():
    assert facts(96, input_size=64, resize=80).preprocess["resize"] == 120
    assert facts(96, input_size=64).preprocess["resize"] == round(96 / 0.875)
    config = timm.create_model("mobilenetv3_small_050").pretrained_cfg
    found = input_facts("it", timm.create_model("mobilenetv3_small_050"), None)
    assert found.preprocess["resize"] == int(config["input_size"][-1] / config["crop_pct"])


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channel_counts_are_said_with_the_layer(channels):
    with pytest.raises(ExportError, match=rf"takes {channels} channels?: its first convolution, stem.*three"):
        open_source(Net(channels), size=64)


@pytest.mark.parametrize("size", [0, -1, True, 10**6])
def test_sizes_and_class_counts_that_are_none_are_refused(size):
    with pytest.raises(UsageError, match="the input size is"):
        open_source(Net(), size=size)
    if size is not True and size < 1:
        with pytest.raises(UsageError, match="number of classes is"):
            open_source("mobilevitv2_050", classes=size)
