"""Deployment-friendly equivalents against the reference modules, every 1-D parameter random."""

import pytest
import torch
from torch import nn

from qhyvit.errors import ExportError, WeightsError
from qhyvit.models import all_families, find_variant
from qhyvit.models._blocks import centred
from qhyvit.models._export import module_of, scope_chains
from qhyvit.models._weights import load_into, randomize

SLOW = [f"mobile_former_{size}" for size in ("26m", "96m", "151m", "214m", "294m", "508m")]
VARIANTS = [
    pytest.param(v, marks=pytest.mark.slow) if v in SLOW else v for f in all_families().values() for v in f.variants
]


def made(name: str, size: int, seed: int = 1) -> tuple[nn.Module, nn.Module]:
    """The reference module with random parameters, and its equivalent."""
    family, variant = find_variant(name)
    reference = family.build(variant, 12).eval()
    randomize(reference, seed)
    return reference, family.rewrite(reference, size)


@pytest.fixture
def double():
    """float64 everywhere: random norms enlarge float32's rounding (mobile_former_214m itself is off by 1e-4)."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.usefixtures("double")
def test_equal_to_the_reference_with_every_parameter_random(name):
    reference, equivalent = made(name, 128)
    x = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = reference(x.permute(0, 3, 1, 2)), equivalent(x)
    assert expected.dtype == found.dtype == torch.float64
    assert float((expected - found).abs().max()) < 1e-9 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["mobilevit_xxs", "mobilevitv2_050"])
def test_random_parameters_matter(name):
    """Each 1-D parameter of timm's module changes its logits: none is hidden by an initial 0 or 1."""
    reference, _ = made(name, 128)
    x = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = reference(x)
        for key, parameter in reference.named_parameters():
            if parameter.dim() != 1:
                continue
            kept = parameter.data.clone()
            parameter.data = kept + 0.3 * torch.randn(kept.shape, generator=torch.Generator().manual_seed(2))
            changed = reference(x)
            parameter.data = kept
            # softmax does not see a constant added to every score of a row: a key's bias, and v2's query's
            if not torch.equal(changed, plain):
                continue
            assert "qkv" in key, key


def test_rewriting_leaves_the_reference_as_it_was():
    family, variant = find_variant("mobilevit_xxs")
    reference = family.build(variant, 5).eval()
    randomize(reference, 0)
    before = {k: v.clone() for k, v in reference.state_dict().items()}
    family.rewrite(reference, 128)
    assert all(torch.equal(before[k], v) for k, v in reference.state_dict().items())


def test_centred_outputs_have_mean_zero():
    layer = centred(torch.randn(8, 5), torch.randn(8))
    with torch.no_grad():
        assert float(layer(torch.randn(3, 5)).mean(dim=1).abs().max()) < 1e-6


@pytest.mark.parametrize("size", [96, 160])
def test_sizes_that_patches_do_not_divide_are_refused(size):
    with pytest.raises(ExportError, match="multiple of 64"):
        made("mobilevit_xxs", size)


def test_other_sizes_are_equal_too():
    reference, equivalent = made("mobilevitv2_050", 192)
    x = torch.rand(1, 192, 192, 3, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = reference(x.permute(0, 3, 1, 2))
        assert torch.allclose(expected, equivalent(x), atol=1e-5 * float(expected.abs().max()))


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
