"""Mobile-Former's reference network, which no library has: sizes, names of the published checkpoints, arithmetic."""

import argparse

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qhyvit.errors import WeightsError
from qhyvit.models import find_variant
from qhyvit.models.shared.mobile_former_convs import SpatialConv
from qhyvit.models.shared.mobile_former_net import CONFIGS, ChannelShuffle, DyReLU, attend, make_model
from qhyvit.models.shared.weights import load_into, randomize

# parameters, and millions of multiply-accumulates in convolutions, linears and matrix products
SIZES = {
    "26m": (3_232_788, 23.6), "52m": (3_469_092, 49.3), "96m": (4_585_252, 92.0), "151m": (7_595_828, 146.2),
    "214m": (9_425_920, 208.4), "294m": (11_422_648, 286.7), "508m": (13_976_976, 498.5),
}  # fmt: skip
ENTRIES = {"26m": 460, "52m": 460, "96m": 466} | dict.fromkeys(("151m", "214m", "294m", "508m"), 616)
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


@pytest.mark.parametrize("size", CONFIGS)
def test_parameters_and_macs_are_the_published_ones(size):
    parameters, macs = SIZES[size]
    model = make_model(size, 1000).eval().requires_grad_(False)
    assert sum(p.numel() for p in model.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert counter.get_total_flops() / 2e6 == pytest.approx(macs, rel=0.02)


class Names(dict):
    """Shapes by name, as a published checkpoint has them."""

    def conv(self, name, norm, out, inputs, kernel):
        self[f"{name}.weight"] = (out, inputs, kernel, kernel)
        self.norm(norm, out)

    def norm(self, name, channels):
        self.update({f"{name}.{part}": (channels,) for part in BATCH_NORM})
        self[f"{name}.num_batches_tracked"] = ()

    def linear(self, name, out, inputs):
        self[f"{name}.weight"], self[f"{name}.bias"] = (out, inputs), (out,)

    def layer_norm(self, name, channels):
        self[f"{name}.weight"] = self[f"{name}.bias"] = (channels,)

    def reader(self, name, channels, dim):
        self.linear(f"{name}.q", channels, dim)
        self.linear(f"{name}.alpha.0", channels, dim)
        self.linear(f"{name}.proj", dim, channels)
        self.layer_norm(f"{name}.layer_norm", dim)

    def tokens(self, name, channels, out, dim):
        self.reader(f"{name}.local_global", channels, dim)
        for layer, rows, columns in [("q", 1, 1), ("channel_mlp", 1, 1), ("ffn.0", 2, 1), ("ffn.2", 1, 2)]:
            self.linear(f"{name}.global_block.{layer}", rows * dim, columns * dim)
        self.layer_norm(f"{name}.global_block.layer_norm", dim)
        self.layer_norm(f"{name}.global_block.ffn_norm", dim)
        self.linear(f"{name}.global_local.k", out, dim)
        self.linear(f"{name}.global_local.proj", out, dim)

    def hyper(self, name, channels, dim):
        self.linear(f"{name}.hyper.0", dim // 4, dim)
        self.linear(f"{name}.hyper.2", 2 * channels, dim // 4)


def published_names(size, classes):
    """Names and shapes of a published checkpoint, written down without the network."""
    config, names = CONFIGS[size], Names()
    dim, g = config.token_dim, config.groups
    names["tokens.weight"] = (config.tokens, dim)
    names.conv("stem.0", "stem.1", config.stem, 3, 3)
    channels = config.stem
    for i, word in enumerate(config.blocks.split()):
        at, expansion, out = f"features.{i}", int(word[1]), int(word[3:].split("/")[0])
        wide = channels * expansion
        if word[0] == "L":
            names.conv(f"{at}.conv.0", f"{at}.conv.1", wide, 1, 3)
            names.conv(f"{at}.conv.4", f"{at}.conv.5", out, wide // g, 1)
            channels = out
            continue
        layers = {
            "M": [(wide, channels // g, 1), (wide, 1, 3), (out, wide // g, 1)],
            "D": [(wide, 1, 3), (out, wide // g, 1), (4 * out, 1, 3), (out, 4 * out // g, 1)],
        }
        for j, layer in enumerate(layers[word[0]]):
            names.conv(f"{at}.conv{j + 1}.0", f"{at}.conv{j + 1}.1", *layer)
        names.hyper(f"{at}.hyper1", wide, dim)
        names.hyper(*((f"{at}.hyper2", wide) if word[0] == "M" else (f"{at}.hyper3", 4 * out)), dim)
        names.tokens(at, channels, out, dim)
        channels = out
    names.reader("local_global", channels, dim)
    names.conv("classifier.conv.1", "classifier.conv.2", 6 * channels, channels // g, 1)
    names.linear("classifier.fc.0", config.hidden, 6 * channels + dim)
    names.norm("classifier.fc.1", config.hidden)
    names.linear("classifier.classifier.1", classes, config.hidden)
    return names


@pytest.mark.parametrize("size", CONFIGS)
def test_names_and_shapes_are_those_of_the_published_checkpoints(size):
    found = {k: tuple(v.shape) for k, v in make_model(size, 1000).state_dict().items()}
    assert found == published_names(size, 1000)
    assert len(found) == ENTRIES[size]


def test_a_published_checkpoint_loads(tmp_path):
    """With the training script's options beside it, and the names that data-parallel training makes."""
    shapes = published_names("26m", 1000)
    state = {f"module.{k}": torch.rand(s) if s else torch.tensor(7) for k, s in shapes.items()}
    path = tmp_path / "mobile-former-26m.pth.tar"
    torch.save({"epoch": 449, "args": argparse.Namespace(lr=0.1), "state_dict": state}, path)
    model = make_model("26m", 1000)
    load_into(model, path, "mobile_former_26m", 1000)
    for key, value in model.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(value, state[f"module.{key}"])


@pytest.mark.parametrize(("model", "classes", "message"), [
    ("96m", 1000, "do not belong to mobile_former_96m"), ("26m", 10, "have 1000 classes, not 10; use --classes 1000"),
])  # fmt: skip
def test_other_checkpoints_are_refused(tmp_path, model, classes, message):
    path = tmp_path / "w.pt"
    torch.save({k: torch.zeros(s) for k, s in published_names("26m", 1000).items()}, path)
    with pytest.raises(WeightsError, match=message):
        load_into(make_model(model, classes), path, f"mobile_former_{model}", classes)


def test_attention_is_the_formula_head_by_head():
    query, keys, values = torch.randn(1, 5, 6), torch.randn(1, 7, 6), torch.randn(1, 7, 6)
    found = attend(query, keys, values, heads=2)
    for channels in (slice(0, 3), slice(3, 6)):
        scores = torch.softmax(query[0, :, channels] @ keys[0, :, channels].T / 3**0.5, dim=1)
        assert torch.allclose(found[0, :, channels], scores @ values[0, :, channels], atol=1e-6)


def test_dynamic_activation_stays_within_its_slopes():
    layer = DyReLU(8, 16)
    layer.hyper[2].bias.data = torch.linspace(-9, 9, 16)
    tokens = torch.randn(2, 3, 16)
    up, down = layer(torch.ones(2, 8, 1, 1), tokens), layer(-torch.ones(2, 8, 1, 1), tokens)
    assert float(up.max()) <= 2.0  # max(a1, a2)
    assert float(up.min()) >= -1.0
    assert float(down.max()) <= 1.0  # -min(a1, a2)
    assert float(down.min()) >= -2.0


def test_shuffle_deals_groups_out_in_turn():
    x = torch.arange(6.0)[None, :, None, None]
    assert ChannelShuffle(2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_random_parameters_matter():
    """Each 1-D parameter changes the logits, but a key's bias, which softmax does not see."""
    family, variant = find_variant("mobile_former_26m")
    reference = family.build(variant, 12).eval()
    randomize(reference, 1)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = reference(x)
        for key, parameter in reference.named_parameters():
            if parameter.dim() != 1:
                continue
            kept = parameter.data.clone()
            parameter.data = kept + 0.3 * torch.randn(kept.shape, generator=torch.Generator().manual_seed(2))
            changed = reference(x)
            parameter.data = kept
            assert key.endswith("global_local.k.bias") or not torch.equal(changed, plain), key


@pytest.mark.parametrize(("stride", "is_dense"), [(2, True), (1, False)])
def test_a_depthwise_convolution_with_several_outputs_a_channel_is_torchs(stride, is_dense):
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(4, 12, 3, stride, 1, groups=4, bias=False), torch.nn.BatchNorm2d(12).eval()
    norm.running_mean.data, norm.running_var.data = torch.randn(12), torch.rand(12) + 0.5
    found, x = SpatialConv(conv, norm), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        y, expected = found(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm(conv(x))
    assert (found.conv.groups == 1) == is_dense
    assert torch.allclose(y, expected[:, found.order], atol=1e-5)
