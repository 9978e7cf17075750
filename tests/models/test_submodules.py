"""Equivalents go into the places of sub-modules, wherever these are, only where they compute the same."""

import pytest
import torch
from torch import nn

from qhyvit.models.shared.conversion import convert
from qhyvit.models.shared.export import export
from qhyvit.models.shared.mobile_former_net import Config, MobileFormer
from qhyvit.models.shared.scopes import modules_of
from qhyvit.models.shared.source import open_source
from qhyvit.models.shared.submodules import as_it_is, equivalents_in, with_equivalents
from qhyvit.models.shared.timm_models import import_timm
from qhyvit.models.shared.weights import randomize

timm = import_timm()
V2, V1 = "mobilevitv2_050", "mobilevit_xxs"


def network(name, size, **options):
    """A network of timm with every parameter random."""
    options = {"num_classes": 7, **options}
    if name.startswith("efficientformerv2") and not options.get("features_only"):
        options["img_size"] = size
    found = timm.create_model(name, **options).eval()
    randomize(found, 2)
    return found


class Normalised(nn.Module):
    """Normalises first."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((x - 0.45) / 0.22)


class Backbone(nn.Module):
    """Uses a network's features by a method, so that its own forward never runs."""

    def __init__(self, net):
        super().__init__()
        self.backbone = net
        self.head = nn.LazyLinear(5)

    def forward(self, x):
        y = self.backbone.forward_features(x)
        return self.head(y.mean((2, 3)) if y.dim() == 4 else y.mean(1))


class LastMap(nn.Module):
    """The last of a network's maps."""

    def __init__(self, net):
        super().__init__()
        self.body, self.head = net, nn.LazyLinear(5)

    def forward(self, x):
        return self.head(self.body(x)[-1].mean((2, 3)))


def several_layers(name, size):
    net = network(name, size)
    net.head.fc = nn.Sequential(nn.Linear(net.head.fc.in_features, 16), nn.Hardswish(), nn.Dropout(), nn.Linear(16, 5))
    return net


def small_former():
    net = MobileFormer(Config(8, 3, 64, 32, "L3-12/2 M3-12 D6-24 M3-24"), 6).eval()
    randomize(net, 2)
    return net


def changed(net, kind):
    """A network whose modules of a class are of one that inherits from it, and computes three times as much."""

    def forward(self, x):
        return 3 * type(self).__mro__[1].forward(self, x)

    for m in net.modules():
        if type(m).__name__ == kind:
            m.__class__ = type(f"Own{kind}", (type(m),), {"forward": forward})
    return net


def compared(net, size):
    """What became of a module, as far as it computes the same."""
    lines: list[str] = []
    height, width = size if isinstance(size, tuple) else (size, size)
    x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = net.eval()(x)
        before = {k: v.clone() for k, v in net.state_dict().items()}
        made = with_equivalents(net, (height, width, 3), lines.append)
        found = made(x.permute(0, 2, 3, 1))
    assert float((found - expected).abs().max()) < 2e-4 * float(expected.abs().max())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    return equivalents_in(made), lines


@pytest.mark.parametrize(
    ("make", "size", "expected"),
    [
        (lambda: nn.Sequential(network(V2, 64)), 64, {"0": "Backbone"}),
        (lambda: Normalised(network(V1, 64)), 64, {"net": "Backbone"}),
        (lambda: nn.Sequential(nn.Sequential(network("efficientformerv2_s0", 64))), 64, {"0.0": "EfficientFormerV2"}),
        (lambda: nn.Sequential(network("efficientformer_l1", 224)), 224, {"0": "EfficientFormer"}),
        (lambda: nn.Sequential(small_former(), nn.Softmax(1)), 64, {"0": "Equivalent"}),
        (lambda: network(V2, 64), 64, {"": "Backbone"}),
        (lambda: small_former(), 64, {"": "Equivalent"}),
        (lambda: network(V2, 64), (64, 128), {"": "Backbone"}),
        (lambda: nn.Sequential(network(V1, 64)), (192, 64), {"0": "Backbone"}),
        (lambda: small_former(), (64, 96), {"": "Equivalent"}),
        (lambda: network("efficientformerv2_s0", (64, 96)), (64, 96), {"": "EfficientFormerV2"}),
    ],
)
def test_a_whole_network_gets_its_form_wherever_it_is(make, size, expected):
    found, lines = compared(make(), size)
    assert found == expected
    assert lines == []


@pytest.mark.parametrize(
    ("make", "size", "kinds", "words"),
    [
        (lambda: network(V2, 64, num_classes=0), 64, {"MobileVitV2Block"}, "the network (ByobNet) stays as it is"),
        (lambda: network(V2, 64, global_pool="max"), 64, {"MobileVitV2Block"}, "would differ by"),
        (lambda: network(V1, 64, global_pool="avgmax"), 64, {"MobileVitBlock"}, "would differ by"),
        (lambda: several_layers(V1, 64), 64, {"MobileVitBlock"}, "not in the form of mobilevit: "),
        (lambda: Backbone(network(V2, 64)), 64, {"MobileVitV2Block"}, None),
        (lambda: LastMap(network(V1, 64, features_only=True)), 64, {"MobileVitBlock"}, None),
        (lambda: Backbone(network("efficientformerv2_s0", 64)), 64, {"Stage"}, None),
        (lambda: network("efficientformerv2_s0", 64, num_classes=0), 64, {"Stage"}, "stays as it is"),
        (lambda: Backbone(network("efficientformer_l1", 224)), 224, {"PoolingBlock"}, None),
        (lambda: changed(network(V2, 64), "ByobNet"), 64, {"MobileVitV2Block"}, "the network (OwnByobNet) stays"),
    ],
)
def test_blocks_get_their_forms_where_the_network_around_them_has_none(make, size, kinds, words):
    found, lines = compared(make(), size)
    assert set(found.values()) == kinds
    assert len(found) >= 3
    assert words is None if not lines else words in lines[0]


def test_only_what_computes_something_else_stays():
    """One of three blocks inherits from timm's and computes more: it alone stays, and is said."""
    net = network(V2, 64)
    net.stages[3] = changed(net.stages[3], "MobileVitV2Block")
    found, lines = compared(net, 64)
    assert found == {"stages.2.1": "MobileVitV2Block", "stages.4.1": "MobileVitV2Block"}
    assert any(line.startswith("stages.3.1 (OwnMobileVitV2Block) stays as it is") for line in lines)


class MobileVitV2Block(nn.Module):
    """Somebody else's, under the same name."""

    def forward(self, x):
        return x.relu()


def test_another_class_of_the_same_name_stays():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), MobileVitV2Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found, lines = compared(net, 16)
    assert found == {}
    assert "1 (MobileVitV2Block) stays as it is" in lines[0]


@pytest.mark.parametrize(("use", "words"), [("hook", "hooks"), ("twice", "not one map of one size"), ("rectangle", "")])
def test_blocks_that_are_used_in_another_way_stay_unless_it_is_a_rectangle(use, words):
    block = network(V2, 64).stages[2][1]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.block = nn.Conv2d(3, block.conv_kxk.conv.in_channels, 1), block

        def forward(self, x):
            x = self.stem(x)
            if use == "twice":
                return (self.block(x).mean((2, 3)) + self.block(x[:, :, ::2, ::2]).mean((2, 3))).flatten(1)
            return self.block(x[:, :, ::2] if use == "rectangle" else x).mean((2, 3))

    if use == "hook":
        block.norm.register_forward_hook(lambda m, inputs, output: 2 * output)
    found, lines = compared(Net(), 16)
    assert found == ({} if words else {"block": "MobileVitV2Block"})
    assert words in lines[0] if words else lines == []


class Fused(nn.Module):
    """Has a method that timm takes for one of its own."""

    def __init__(self, result):
        super().__init__()
        self.conv, self.result = nn.Conv2d(3, 4, 3), result

    def fuse(self):
        return self.result

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize("result", [None, nn.Conv2d(3, 4, 3)])
def test_branches_that_do_not_merge_right_stay(result):
    net = nn.Sequential(Fused(result), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found, lines = compared(net, 16)
    assert found == {}
    assert lines[0].startswith("branches stay as they are, not merged")


class Features(nn.Module):
    """A stem and one block of timm's."""

    def __init__(self):
        super().__init__()
        net = network(V1, 64)
        self.stem, self.stages = net.stem, nn.ModuleList([nn.Conv2d(16, 48, 1), net.stages[2][1]])

    def forward_features(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x


@pytest.mark.slow
def test_paths_of_blocks_are_those_of_the_users_module():
    net = Backbone(Features())
    net(torch.rand(1, 3, 16, 16))
    made = with_equivalents(net.eval(), (16, 16, 3))
    assert equivalents_in(made) == {"backbone.stages.1": "MobileVitBlock"}
    blocks = set(modules_of(convert(made, (16, 16, 3)), made).values())
    assert blocks >= {"backbone.stages.1.transformer.0.norm1", "backbone.stages.0"}
    assert {b.split(".")[0] for b in blocks} <= {"backbone", "head"}


class Known(nn.Conv2d):
    """Stands for a block of a family."""


class Form(nn.Module):
    """Stands for its equivalent: it cannot be converted."""

    def __init__(self, source):
        super().__init__()
        self.source = source

    def forward(self, x):
        y = self.source(x)
        values, places = y.flatten(1).sort(1)
        return values.gather(1, places.argsort(1)).reshape(y.shape)


Form.__module__ = "qhyvit.models.form"  # what is told from somebody's modules by its package


def test_a_form_that_the_converter_refuses_is_left_out(monkeypatch):
    net = nn.Sequential(Known(3, 4, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.preprocess = {"input_size": 16}
    forms = [("a family", lambda m, size: Form(m))]
    monkeypatch.setattr("qhyvit.models.shared.submodules._makers", lambda m: forms if isinstance(m, Known) else [])
    lines: list[str] = []
    made = export(open_source(net), lines.append)
    assert made.facts["equivalents"] == {}
    assert lines[0].startswith("export: tried once more without the forms of known blocks: litert-torch could not")


def test_without_forms_a_module_stays_whole():
    net = network(V2, 64)
    assert equivalents_in(as_it_is(net, (64, 64, 3))) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: nn.Sequential(network(V2, 128)), 128),
        (lambda: nn.Sequential(network(V1, 128)), 128),
        (lambda: nn.Sequential(network("efficientformer_l1", 224)), 224),
        (lambda: nn.Sequential(network("efficientformerv2_s0", 224)), 224),
        (lambda: network(V2, 128, num_classes=0), 128),
        (lambda: network(V2, 128, global_pool="max"), 128),
        (lambda: several_layers(V2, 128), 128),
    ],
)
def test_such_networks_export(make, size):
    net = make()
    net.preprocess = {"input_size": size}
    made = export(open_source(net))
    assert made.facts["equivalents"]
