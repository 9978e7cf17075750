"""Deployment-friendly equivalents against the reference modules, every 1-D parameter random."""

import re

import pytest
import torch
from torch import nn

from qhyvit.errors import ExportError, WeightsError
from qhyvit.models import all_families, find_variant
from qhyvit.models.efficientformer import Pooling
from qhyvit.models.shared.modules import centred
from qhyvit.models.shared.scopes import module_of, scope_chains
from qhyvit.models.shared.weights import load_into, randomize

FORMERS = [f"mobile_former_{size}" for size in ("26m", "96m", "151m", "214m", "294m", "508m")]
LARGE = ("efficientformer_l3", "efficientformer_l7", "efficientformerv2_s2", "efficientformerv2_l", *FORMERS)
ONE_SIZE = ("efficientformer", "efficientformerv2")  # tables of attention biases fit one size only
VARIANTS = [
    pytest.param(
        v.name, v.input_size if f.name in ONE_SIZE else 128, marks=[pytest.mark.slow] if v.name in LARGE else []
    )
    for f in all_families().values()
    for v in f.variants.values()
]


def made(name: str, size: int | tuple[int, int], seed: int = 1) -> tuple[nn.Module, nn.Module]:
    """The reference module with random parameters, and its equivalent."""
    family, variant = find_variant(name)
    reference = family.build(variant, 12).eval()
    randomize(reference, seed)
    height, width = size if isinstance(size, tuple) else (size, size)
    return reference, family.rewrite(reference, (height, width, 3))


@pytest.fixture
def double():
    """float64 everywhere: random norms enlarge float32's rounding (mobile_former_214m itself is off by 1e-4)."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("name", "size"), VARIANTS)
@pytest.mark.usefixtures("double")
def test_equal_to_the_reference_with_every_parameter_random(name, size):
    reference, equivalent = made(name, size)
    x = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = reference(x.permute(0, 3, 1, 2)), equivalent(x)
    assert expected.dtype == found.dtype == torch.float64
    assert float((expected - found).abs().max()) < 1e-9 * float(expected.abs().max())


def matters(reference: nn.Module, x: torch.Tensor, keys: list[str]) -> dict[str, bool]:
    """Whether the logits change with each of these parameters."""
    parameters, found = dict(reference.named_parameters()), {}
    with torch.no_grad():
        plain = reference(x)
        for key in keys:
            kept = parameters[key].data.clone()
            noise = torch.randn(kept.shape, generator=torch.Generator().manual_seed(2))
            parameters[key].data = kept + 0.3 * noise
            reference.train().eval()  # timm keeps gathered attention biases from one run to the next
            found[key] = not torch.equal(reference(x), plain)
            parameters[key].data = kept
    return found


@pytest.mark.parametrize(("name", "size", "blocks"), [("mobilevit_xxs", 128, 9), ("efficientformer_l1", 224, 1)])
def test_keys_and_values_have_no_offset(name, size, blocks):
    _, equivalent = made(name, size)
    layers = dict(equivalent.named_modules())
    own = [layers[n].bias for n in layers if n.endswith((".key", ".value"))]
    for bias in (layers[n].bias for n in layers if n.endswith(".qkv")):  # one layer for all three
        own += bias.chunk(3)[1:]
    assert len(own) == 2 * blocks
    assert not any(bias.any() for bias in own)


def test_a_mean_of_squares_that_holds_eps_is_a_norm_with_that_eps():
    """On tokens as small as eps, where it decides: an eps of another size is another result."""
    reference, equivalent = made("mobilevit_xxs", 128)
    block, ours = reference.stages[2][1], equivalent.stages[2][1]
    for source, conv in ((block, block.conv_1x1), (ours, ours.conv_1x1)):
        conv.weight.data *= 1e-3
        source.conv_fusion = nn.Identity()
    x = torch.rand(1, block.conv_kxk.conv.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = block(x), ours(x)
        block.norm.eps = block.transformer[0].norm1.eps = 1e-6
        other = block(x)
    largest = float(expected.abs().max())
    assert float((expected - found).abs().max()) < 1e-4 * largest
    assert float((expected - other).abs().max()) > 1e-3 * largest


def test_norms_of_different_eps_are_refused():
    family, variant = find_variant("mobilevit_xxs")
    reference = family.build(variant, 12).eval()
    reference.stages[3][1].transformer[0].norm2.eps = 1e-6
    with pytest.raises(ExportError, match="eps"):
        family.rewrite(reference, (128, 128, 3))


@pytest.mark.parametrize("name", ["mobilevit_xxs", "mobilevitv2_050"])
def test_random_parameters_matter(name):
    """Each 1-D parameter of timm's module changes its logits: none is hidden by an initial 0 or 1."""
    reference, _ = made(name, 128)
    x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    found = matters(reference, x, [k for k, p in reference.named_parameters() if p.dim() == 1])
    # softmax does not see a constant added to every score of a row: a key's bias, and v2's query's
    assert all("qkv" in key for key, changed in found.items() if not changed), found


@pytest.mark.parametrize("name", ["efficientformer_l1", "efficientformerv2_s0"])
def test_random_parameters_of_every_kind_matter(name):
    """The same for one parameter of each kind (a layer scale, a bias table, ...), in the last stage where it can be."""
    reference, _ = made(name, 224)
    kinds = {re.sub(r"\d+", "", k): k for k, p in reference.named_parameters() if p.dim() == 1 or "biases" in k}
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    found = matters(reference, x, [*kinds.values()])
    # the same constant for every score of a row, through a talking head too; all of qkv's bias is more than the key's
    hidden = ("k.conv.bias", "k.bn.bias", "talking_head1.bias")
    assert all(key.endswith(hidden) for key, changed in found.items() if not changed), found


def test_rewriting_leaves_the_reference_as_it_was():
    family, variant = find_variant("mobilevit_xxs")
    reference = family.build(variant, 5).eval()
    randomize(reference, 0)
    before = {k: v.clone() for k, v in reference.state_dict().items()}
    family.rewrite(reference, (128, 128, 3))
    assert all(torch.equal(before[k], v) for k, v in reference.state_dict().items())


def test_centred_outputs_have_mean_zero():
    layer = centred(torch.randn(8, 5), torch.randn(8))
    with torch.no_grad():
        assert float(layer(torch.randn(3, 5)).mean(dim=1).abs().max()) < 1e-6


@pytest.mark.parametrize("size", [96, 160, (128, 96)])
def test_sizes_that_patches_do_not_divide_are_refused(size):
    with pytest.raises(ExportError, match="multiple of 64"):
        made("mobilevit_xxs", size)


def test_other_sizes_are_equal_too():
    reference, equivalent = made("mobilevitv2_050", 192)
    x = torch.rand(1, 192, 192, 3, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = reference(x.permute(0, 3, 1, 2))
        assert torch.allclose(expected, equivalent(x), atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "size", "equal_size"), [("efficientformer_l1", 192, 193), ("efficientformerv2_s0", 256, 210)]
)
def test_only_sizes_that_fit_the_bias_tables(name, size, equal_size):
    with pytest.raises(ExportError, match=r"input size \d+ gives \d+x\d+ tokens, but the attention biases of stages"):
        made(name, size)
    reference, equivalent = made(name, equal_size)
    x = torch.rand(1, equal_size, equal_size, 3, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = reference(x.permute(0, 3, 1, 2))
        assert torch.allclose(expected, equivalent(x), atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("name", "size"), [("efficientformer_l1", 224), ("mobilevitv2_050", 256)])
def test_preprocessing_is_timms(name, size):
    family, variant = find_variant(name)
    config = family.build(variant, 5).default_cfg
    assert tuple(config["input_size"]) == (3, size, size)
    assert variant.preprocess["mean"] == tuple(config["mean"])
    assert variant.preprocess["std"] == tuple(config["std"])
    assert variant.preprocess["interpolation"] == config["interpolation"]
    assert variant.preprocess["resize"] == int(size / config["crop_pct"])


@pytest.mark.parametrize("sides", [(7, 7), (9, 4), (3, 8)])
def test_pooling_is_a_mean_of_the_pixels_inside(sides):
    gamma, x = torch.rand(5), torch.randn(1, 5, *sides)
    pooled = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    expected = x + gamma[:, None, None] * (pooled - x)
    with torch.no_grad():
        assert torch.allclose(Pooling(gamma, sides)(x), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["efficientformer_l1", "efficientformerv2_s0"])
def test_a_state_dict_of_both_heads_loads_and_another_class_count_is_named(name, tmp_path):
    family, variant = find_variant(name)
    module = family.build(variant, 12)
    path = tmp_path / "w.pt"
    torch.save(module.state_dict(), path)
    again = family.build(variant, 12)
    load_into(again, path, name, 12)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in module.state_dict().items())
    with pytest.raises(WeightsError, match="use --classes 12"):
        load_into(family.build(variant, 5), path, name, 5)


def test_weights_of_a_wider_model_are_refused(tmp_path):
    family, variant = find_variant("mobilevitv2_050")
    path = tmp_path / "w.pt"
    torch.save(family.build(variant, 12).state_dict(), path)
    wide_family, wide = find_variant("mobilevitv2_075")
    with pytest.raises(WeightsError, match="do not belong to mobilevitv2_075"):
        load_into(wide_family.build(wide, 12), path, "mobilevitv2_075", 12)


def test_half_precision_weights_load_as_float(tmp_path):
    family, variant = find_variant("mobilevit_xxs")
    module = family.build(variant, 7)
    path = tmp_path / "half.pt"
    torch.save({"state_dict": {k: v.half() for k, v in module.state_dict().items()}}, path)
    again = family.build(variant, 7)
    load_into(again, path, "mobilevit_xxs", 7)
    weight = again.state_dict()["stem.conv.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, module.state_dict()["stem.conv.weight"].half().float())


class Leaf(nn.Module):
    """Nothing."""


class Root(nn.Module):
    """Children whose names contain the separators of the exporter's names, and a list, which leaves no trace there."""

    def __init__(self):
        super().__init__()
        self.conv_1x1 = nn.Sequential(Leaf(), Leaf())
        self.conv = Leaf()
        self.blocks = nn.ModuleList([Leaf()])


def test_a_tensor_name_tells_its_module():
    chains = scope_chains(Root())
    for chain, path in chains.items():
        assert module_of(chain, chains) == path
        assert module_of(f"nothing;{chain};more", chains) == path
    assert set(chains.values()) == {"conv_1x1", "conv_1x1.0", "conv_1x1.1", "conv", "blocks.0"}
    assert module_of("", chains) == module_of("serving_default", chains) == ""
