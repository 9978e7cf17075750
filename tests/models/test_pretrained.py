"""Published weights: timm's loader is asked, and what it cannot fetch is one line that says what to do."""

import json
import re
import sys

import pytest
import safetensors.torch
import torch

from qhyvit.cli import main
from qhyvit.config import BuildConfig, ModelConfig
from qhyvit.errors import InputError, UsageError
from qhyvit.models.shared.pretrained import create
from qhyvit.models.shared.source import PRETRAINED, check_weights, open_source
from qhyvit.models.shared.timm_models import import_timm
from qhyvit.models.shared.weights import randomize
from qhyvit.stages import check_weights as check_config
from qhyvit.stages import export as export_stage
from qhyvit.sweep.spec import ModelSpec
from qhyvit.work import FACTS, Work

NAME = "mobilevitv2_050"
SMALLEST = "test_efficientnet"  # of timm's networks, which it tests itself with


def saved(net, place, name=NAME):
    """As timm's save_for_hf leaves a network."""
    place.mkdir(exist_ok=True)
    about = {"architecture": name, "num_classes": net.num_classes, "pretrained_cfg": {
        "input_size": [3, 256, 256], "interpolation": "bicubic", "crop_pct": 0.888, "mean": [0.0] * 3, "std": [1.0] * 3,
        "first_conv": "stem.conv", "classifier": "head.fc"}}  # fmt: skip
    (place / "config.json").write_text(json.dumps(about))
    safetensors.torch.save_file(net.state_dict(), str(place / "model.safetensors"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of 5 classes as timm saves it for a hub, and its network."""
    timm = import_timm()
    place = tmp_path_factory.mktemp("hub") / "net"
    net = timm.create_model(NAME, num_classes=5).eval()
    randomize(net, 4)
    saved(net, place)
    return place, net


def same(first, second):
    return all(torch.equal(first.state_dict()[name], value) for name, value in second.state_dict().items())


@pytest.fixture
def published(folder, monkeypatch):
    """timm's own loader with another place in the configuration: a file in the place of the hub."""
    place, _ = folder
    timm = import_timm()
    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **options: real(
        name, pretrained=pretrained, **options, **({} if not pretrained else {
            "pretrained_cfg_overlay": {"file": str(place / "model.safetensors"), "num_classes": 5}}),
    ))  # fmt: skip


def test_a_folder_of_a_hub_is_a_model_with_its_weights(folder):
    place, net = folder
    found = open_source(f"local-dir:{place}")
    assert same(found.reference, net)
    assert (found.family, found.classes, found.shape) == ("mobilevitv2", 5, (256, 256, 3))
    assert found.weights == f"pretrained local-dir:{place}"


def test_a_folder_takes_other_weights_and_random_ones(folder, tmp_path):
    place, _ = folder
    other = create(NAME, pretrained=False, num_classes=5)
    torch.save(other.state_dict(), tmp_path / "w.pt")
    assert same(open_source(f"local-dir:{place}", tmp_path / "w.pt").reference, other)
    assert open_source(f"local-dir:{place}", random_weights=True).weights == "random"


@pytest.mark.parametrize("name", [NAME, f"timm/{NAME}", f"timm/{NAME}.cvnets_in1k"])
def test_pretrained_weights_are_those_that_timm_loads(folder, published, name):
    found = open_source(name, PRETRAINED)
    assert same(found.reference, folder[1])
    assert (found.family, found.classes) == ("mobilevitv2", 5)
    assert found.weights == f"pretrained timm/{NAME}.cvnets_in1k"


def test_other_classes_than_the_published_ones_are_refused(folder, published):
    with pytest.raises(UsageError, match=r"have 5 classes; for 12 give --weights FILE"):
        open_source(NAME, PRETRAINED, classes=12)


def test_other_classes_than_those_of_a_folder_are_refused(folder):
    with pytest.raises(UsageError, match="have 5 classes"):
        open_source(f"local-dir:{folder[0]}", classes=12)


def test_no_code_runs_out_of_what_was_fetched(tmp_path, capfd, monkeypatch):
    """timm asks torch for weights alone, and where it does not, torch is told to."""
    (tmp_path / "config.json").write_text(json.dumps({"architecture": NAME, "num_classes": 5}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'echo harm'\ntR.")
    with pytest.raises(InputError, match="is no network that timm can load"):
        open_source(f"local-dir:{tmp_path}")
    assert "harm" not in capfd.readouterr().out
    monkeypatch.setattr(import_timm(), "create_model", lambda *_, **__: torch.load(
        tmp_path / "pytorch_model.bin", weights_only=False))  # fmt: skip
    with pytest.raises(InputError):
        create("hf-hub:a/b", pretrained=True)
    assert "harm" not in capfd.readouterr().out


@pytest.mark.slow
def test_a_changed_folder_is_exported_again(tmp_path):
    timm, place, lines = import_timm(), tmp_path / "net", []
    for seed in (1, 1, 2):
        net = timm.create_model(SMALLEST, num_classes=5)
        randomize(net, seed)
        saved(net, place, SMALLEST)
        work = Work(tmp_path / "work", log=lines.append)
        export_stage(work, ModelConfig(f"local-dir:{place}", input_size=64))
    assert [line.partition(" in ")[0] for line in lines if ": done" in line or "kept" in line] == [
        "export: done", "export: unchanged, kept", "export: done",
    ]  # fmt: skip
    assert work.json(FACTS)["weights"] == f"pretrained local-dir:{place}"


OFFLINE = {
    NAME: f"weights of {NAME}: .*fetch https://huggingface.co/timm/{NAME}.cvnets_in1k/resolve/main/model.safetensors "
          "elsewhere and give it as --weights FILE",
    f"timm/{NAME}.cvnets_in1k": f"fetch https://huggingface.co/timm/{NAME}.cvnets_in1k/resolve/main/model.safetensors",
    "hf-hub:timm/none.in1k": "hf download timm/none.in1k --local-dir FOLDER` elsewhere, and name local-dir:FOLDER here",
}  # fmt: skip


@pytest.mark.parametrize("name", OFFLINE)
def test_without_a_network_one_line_says_what_to_fetch(name, tmp_path, monkeypatch, capsys):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)  # read when it was imported
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    out = ["--pretrained"] if ":" not in name else []
    with pytest.raises(SystemExit) as ended:
        main(["export", name, *out, "--work", str(tmp_path / "work")])
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "HF_HUB_OFFLINE is set" in line
    assert re.search(OFFLINE[name], line)
    assert not (tmp_path / "work").exists()


def test_a_refused_connection_is_that_line_too(monkeypatch):
    def refused(*_, **__):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(import_timm(), "create_model", refused)
    with pytest.raises(InputError, match=rf"cannot be reached; fetch https://\S+/timm/{NAME}\S+ elsewhere"):
        create(NAME, pretrained=True)


def test_a_client_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(sys.modules["timm.models._hub"], "_has_hf_hub", False)
    with pytest.raises(InputError, match="run: pip install huggingface_hub"):
        create(NAME, pretrained=True)


def test_what_cannot_be_meant_is_refused_before_any_work(tmp_path):
    for model, weights, words in (
        ("mobile_former_52m", PRETRAINED, "timm has no weights of mobile_former_52m"),
        ("timm/coatnet_0_224", PRETRAINED, "timm has no weights of coatnet_0_224"),
        ("net.py:make", PRETRAINED, "--pretrained is for names"),
        ("net.onnx", PRETRAINED, "has its weights inside"),
        ("hf-hub:", None, "needs OWNER/NAME"),
        ("local-dir:", None, "needs a folder"),
    ):
        with pytest.raises(UsageError, match=words):
            check_weights(model, weights, random_weights=False)
    with pytest.raises(InputError, match=r"has no config\.json"):
        check_weights(f"local-dir:{tmp_path}", None, random_weights=False)
    with pytest.raises(UsageError, match="give one of"):
        check_config(ModelConfig(NAME, tmp_path / "w", pretrained=True))
    with pytest.raises(UsageError, match="give one of"):
        check_config(ModelConfig(NAME, None, True, pretrained=True))


def test_settings_and_sweeps_take_published_weights(tmp_path):
    (tmp_path / "b.toml").write_text('[model]\nname = "local-dir:net"\n[data]\nimages = "i"\n')
    config = BuildConfig.from_toml(tmp_path / "b.toml")
    assert config.model.name == f"local-dir:{tmp_path}/net"
    assert BuildConfig.parse(config.to_json(), "it") == config
    for spec in ({"name": NAME, "pretrained": True}, {"name": "hf-hub:timm/x"}, {"name": f"local-dir:{tmp_path}"}):
        assert ModelSpec.parse(spec, "it").pretrained == ("pretrained" in spec)
    for spec in ({"name": NAME}, {"name": NAME, "pretrained": True, "random_weights": True}):
        with pytest.raises(UsageError, match="one of weights"):
            ModelSpec.parse(spec, "it")
