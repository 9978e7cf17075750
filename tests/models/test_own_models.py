"""Models beyond the zoo: a user's factory, timm's other hybrids, and the rewrites that they need."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from qhyvit.config import ModelConfig
from qhyvit.errors import ExportError, InputError, UsageError, WeightsError
from qhyvit.lowering.lower import lower, quantized_file
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.models.shared.export import export
from qhyvit.models.shared.source import GENERIC, open_source
from qhyvit.models.shared.weights import randomize, settle
from qhyvit.passes import prepared
from qhyvit.plan import QuantPlan
from qhyvit.stages import export as export_stage
from qhyvit.tflite.read import read
from qhyvit.verify.report import verify
from qhyvit.work import Work
from qhyvit_device.preprocess import Preprocess, quantize

OWN = '''
import torch
from torch import nn
from beside import WIDTH

class Hybrid(nn.Module):
    """Convolution, L2-normalized attention over positions with an encoding of sines, a quotient, a square."""

    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTH, 4, 4), nn.BatchNorm2d(WIDTH), nn.GELU())
        self.norm, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.head = nn.Linear(WIDTH, num_classes)
        self.preprocess = {"input_size": 32, "resize": 40, "mean": (0.5,) * 3, "std": (0.5,) * 3}

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + torch.sin(torch.arange(x.shape[1])[:, None] / 10000 ** (torch.arange(WIDTH) / WIDTH))
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
        x = x + torch.softmax(q @ k.transpose(1, 2) / 0.1, dim=-1) @ v
        return self.head(x.mean(dim=1))

def make(num_classes=6):
    torch.manual_seed(0)
    return Hybrid(num_classes)

def fixed():
    return make()

def broken():
    raise RuntimeError("no such layer")

def other():
    return 3

def features():
    return nn.Conv2d(3, 4, 3)

def known():
    import timm
    return timm.create_model("mobilevitv2_050", num_classes=4)
'''


@pytest.fixture
def own(tmp_path):
    (tmp_path / "beside.py").write_text("WIDTH = 16\n")
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return lambda function, **options: open_source(f"{path}:{function}", **options)


def verified(made, size):
    """The min-max integer file of an export, checked against its simulation."""
    graph = prepared(read(made.tflite))
    raw = made.facts["preprocess"]
    how = Preprocess("squash", size, raw["interpolation"], tuple(raw["mean"]), tuple(raw["std"]))
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    floats = (torch.from_numpy(pixels) / 255 - torch.tensor(how.mean)) / torch.tensor(how.std)
    minmax = method("minmax")
    solution = minmax.search(Problem(graph, floats), minmax.defaults)
    plan = QuantPlan(solution.tensors, "minmax", minmax.defaults)
    entry = plan.tensors[graph.tensors[graph.inputs[0]].name]
    codes = [quantize(p, how, entry.scale[0], entry.zero_point[0], "int8")[None] for p in pixels]
    model = quantized_file(solution.shipped, plan)
    return graph, verify(solution.graph, lower(solution.shipped, plan), model, floats, codes, ["litert"])


def test_a_factory_of_ones_own_becomes_a_verified_integer_file(own):
    source = own("make")
    assert (source.family, source.classes, source.shape) == (GENERIC, 6, (32, 32, 3))
    graph, report = verified(export(source), 32)
    assert report.passed, report.to_json()["checks"]
    ops = {n.op for n in graph.nodes}
    assert not ops & {"DIV", "SIN", "POW", "ABS", "SQRT", "MAXIMUM", "SQUARED_DIFFERENCE"}
    assert {n.block for n in graph.nodes} >= {"norm", "stem.2"}


def test_a_factory_takes_a_class_count_and_weights(own, tmp_path):
    path = tmp_path / "w.pt"
    torch.save(own("make", classes=9).reference.state_dict(), path)
    loaded = own("make", classes=9, weights=path)
    assert (loaded.classes, loaded.weights) == (9, "w.pt")
    with pytest.raises(WeightsError, match="use --classes 9"):
        own("make", weights=path)
    with pytest.raises(UsageError, match="gives 6 outputs"):
        own("fixed", classes=9)


def test_blocks_of_a_known_family_get_its_form(own):
    source = own("known", size=128)
    assert (source.family, source.classes, source.preprocess["resize"]) == ("mobilevitv2", 4, 144)


@pytest.mark.parametrize(
    ("function", "options", "kind", "words"),
    [
        ("nothing", {}, UsageError, "no function 'nothing'"),
        ("broken", {}, ExportError, "RuntimeError: no such layer"),
        ("other", {}, ExportError, "gives a int, not a torch.nn.Module"),
        ("features", {}, UsageError, "give --input-size"),
        ("features", {"size": 32, "task": "classify"}, UsageError, r"--task classify needs .*it may be raw, segment"),
        ("make", {"size": 3}, ExportError, "does not run"),
    ],
)
def test_what_is_wrong_with_a_factory_is_said(own, function, options, kind, words):
    with pytest.raises(kind, match=words):
        own(function, **options)


def test_what_cannot_be_traced_is_told_with_its_line(tmp_path):
    text = OWN.replace("return self.head(x.mean(dim=1))", "return self.head(x[:, 0]) if x.sum() > 0 else x[:, 0]")
    (tmp_path / "own.py").write_text(text)
    (tmp_path / "beside.py").write_text("WIDTH = 16\n")
    with pytest.raises(ExportError, match=r"data-dependent .* line \d+, in forward: return self\.head.* if x\.sum"):
        export(open_source(f"{tmp_path}/own.py:make"))


def test_a_missing_file_and_an_unknown_timm_model_are_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.py does not exist"):
        open_source(f"{tmp_path}/gone.py:make")
    with pytest.raises(UsageError, match="near: edgenext_base"):
        open_source("timm/edgenext_nano")


def test_the_stage_runs_again_where_the_factory_gives_other_weights(own, tmp_path):
    work, spec = Work(tmp_path / "w"), f"{tmp_path}/own.py:make"
    lines: list[str] = []
    work.log = lines.append
    export_stage(work, ModelConfig(spec))
    first = work.read("float.tflite")
    export_stage(work, ModelConfig(spec))
    assert lines[-1] == "export: unchanged, kept"
    (tmp_path / "own.py").write_text(OWN.replace("manual_seed(0)", "manual_seed(1)"))
    export_stage(work, ModelConfig(spec))
    assert lines[-1].startswith("export: done")
    assert work.read("float.tflite") != first
    assert json.loads(work.read("export.json"))["weights"] == "its own"


@pytest.mark.parametrize(("old", "new"), [
    ("x.mean(dim=1)", "x.amax(dim=1)"),  # forward alone: no weight differs
    ('"resize": 40', '"resize": 36'),
])  # fmt: skip
def test_the_stage_runs_again_where_code_or_preprocessing_changed(own, tmp_path, old, new):
    work, spec = Work(tmp_path / "w"), f"{tmp_path}/own.py:make"
    export_stage(work, ModelConfig(spec))
    first = work.read("float.tflite"), work.json("export.json")["preprocess"]
    (tmp_path / "own.py").write_text(OWN.replace(old, new))
    export_stage(work, ModelConfig(spec))
    assert (work.read("float.tflite"), work.json("export.json")["preprocess"]) != first


WORKING = (
    "botnet26t_256", "edgenext_xx_small", "efficientvit_b0", "fastvit_t8", "levit_128s", "mobilenetv4_hybrid_medium",
    "shvit_s1", "starnet_s1", "tiny_vit_5m_224",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKING)
def test_hybrids_that_no_family_knows_build(name):
    source = open_source(f"timm/{name}", seed=1, random_weights=True)
    assert source.family == GENERIC
    _, report = verified(export(source), source.shape[0])
    assert report.passed, report.to_json()["checks"]


def test_random_networks_keep_the_size_of_their_values():
    """Twenty layers that each grow what they read tenfold, and a norm that a picture hardly changes."""
    layers = [m for _ in range(20) for m in (nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())]
    net = nn.Sequential(*layers)
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.normal_(m.weight, std=10.0)
    settle(net.eval(), (16, 16, 3), 0)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = net(x)
        assert 1e-3 < float(y.abs().max()) < 1e2
        torch.testing.assert_close(y, net.double()(x.double()).float(), atol=1e-4, rtol=1e-4)
    norm = net[1]
    assert not norm.training
    assert norm.momentum == 0.1


def test_weights_reach_what_timm_computed_from_the_old_ones(tmp_path):
    """The run that counts the classes leaves tables of attention biases behind, made from the fresh weights."""
    from safetensors.torch import save_file

    factory = tmp_path / "v2.py"
    factory.write_text(
        "import timm\n\n\ndef make():\n"
        "    found = timm.create_model('efficientformerv2_s0', num_classes=4, img_size=64)\n"
        "    found.preprocess = {'input_size': 64}\n    return found\n"
    )
    trained = open_source(f"{factory}:make").reference
    randomize(trained, 3)
    trained.train().eval()
    save_file({k: v.contiguous() for k, v in trained.state_dict().items()}, tmp_path / "v2.safetensors")
    found = open_source(f"{factory}:make", tmp_path / "v2.safetensors").reference
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found(image), trained(image), rtol=0, atol=0)
