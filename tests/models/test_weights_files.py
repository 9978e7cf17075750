"""Weights files as training scripts leave them: sets, prefixes, what lies beside, number types, what is refused."""

import argparse
import datetime
import json
import pathlib
import pickle
import types

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from qhyvit.errors import InputError, QhyvitError, WeightsError
from qhyvit.models.shared.shards import weights_digest
from qhyvit.models.shared.state_dicts import _content
from qhyvit.models.shared.timm_models import import_timm
from qhyvit.models.shared.weights import load_into, randomize


class Net(nn.Module):
    """Two layers, a batch norm, and a mask that may hold infinities."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 10)
        self.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))


GOOD = Net(1).state_dict()


def renamed(prefix, state=GOOD):
    return {prefix + name: value for name, value in state.items()}


def inside(part, layer="stem", state=GOOD):
    return {name.replace(f"{layer}.", f"{layer}.{part}"): value for name, value in state.items()}


def loaded(tmp_path, content, name="w.pth"):
    """The label and the state that a file's content gives."""
    torch.save(content, tmp_path / name)
    net = Net(2)
    label = load_into(net, tmp_path / name, "net", 10)
    return label, net.state_dict()


def same(state, expected=GOOD):
    return all(torch.equal(state[name].float(), value.float()) for name, value in expected.items())  # fmt: skip


OTHER = Net(5).state_dict()
FILES = {
    "plain": (GOOD, "w.pth"),
    "state_dict": ({"state_dict": GOOD, "epoch": 3}, "w.pth (state_dict)"),
    "model": ({"model": GOOD, "optimizer": {"state": {0: torch.zeros(3)}}}, "w.pth (model)"),
    "ema beside": ({"state_dict": OTHER, "state_dict_ema": GOOD}, "w.pth (state_dict_ema, not state_dict)"),
    "model and ema": ({"model": OTHER, "model_ema": GOOD}, "w.pth (model_ema, not model)"),
    "ema one level down": ({"model": OTHER, "ema": {"state_dict": GOOD}}, "w.pth (ema.state_dict, not model)"),
    "ema without buffers": (
        {"ema": {k: v for k, v in OTHER.items() if "running" not in k}, "model": GOOD}, "w.pth (model, not ema)",
    ),
    "ema and teacher": ({"teacher": OTHER, "model": GOOD}, "w.pth (model, not teacher)"),
    "ema alone": ({"state_dict_ema": GOOD}, "w.pth (state_dict_ema)"),
    "two deep": ({"model": {"state_dict": GOOD}}, "w.pth (model.state_dict)"),
    "the set that fits": ({"state_dict": {"other": torch.zeros(2)}, "model": GOOD}, "w.pth (model, not state_dict)"),
    "parallel": (renamed("module."), "w.pth"),
    "compiled": (renamed("_orig_mod."), "w.pth"),
    "compiled, parallel": (renamed("module._orig_mod."), "w.pth"),
    "parallel, compiled": (renamed("_orig_mod.module."), "w.pth"),
    "part of it compiled": (inside("_orig_mod."), "w.pth"),
    "part of it parallel": (inside("module."), "w.pth"),
    "model prefix": (renamed("model."), "w.pth"),
    "net prefix in a set": ({"state_dict": renamed("net.")}, "w.pth (state_dict)"),
    "deep prefix": (renamed("module.model.backbone."), "w.pth"),
    "beside a loss": (
        {"state_dict": {**renamed("model."), "loss.weight": torch.ones(3)}},
        "w.pth (state_dict; model.* alone, without 1 other entries)",
    ),
    "average and student": (
        {**renamed("student.", OTHER), **renamed("ema_model.")}, "w.pth (ema_model.* alone, without 10 other entries)",
    ),
    "student and teacher": (
        {**renamed("teacher.", OTHER), **renamed("student.")}, "w.pth (student.* alone, without 10 other entries)",
    ),
    "numpy scalar": ({"state_dict": GOOD, "best": np.float64(1), "n": np.int64(2), "f": np.float32(3)}, None),
    "options": ({"model": GOOD, "args": argparse.Namespace(lr=0.1), "more": types.SimpleNamespace(a=1)}, None),
    "paths and dates": ({"model": GOOD, "p": pathlib.PurePosixPath("/a"), "d": datetime.datetime(2026, 1, 1)}, None),
    "numpy array beside": ({"model": GOOD, "curve": np.arange(3.0), "names": np.array(["a"])}, None),
    "numpy weights": ({"state_dict": {k: v.numpy() for k, v in GOOD.items()}}, None),
    "parameters": ({k: nn.Parameter(v) if v.is_floating_point() else v for k, v in GOOD.items()}, "w.pth"),
    "counters left out": ({k: v for k, v in GOOD.items() if "num_batches" not in k}, "w.pth"),
    "scalars between": ({**GOOD, "epoch": 3, "note": "x"}, "w.pth"),
    "all float, counters too": ({k: v.half() for k, v in GOOD.items()}, "w.pth"),
    "float64": ({k: v.double() if v.is_floating_point() else v for k, v in GOOD.items()}, "w.pth"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_loads_and_says_what_was_taken(tmp_path, name):
    content, label = FILES[name]
    said, state = loaded(tmp_path, content)
    assert same(state, {k: v.half().float() for k, v in GOOD.items()} if "all float" in name else GOOD)
    if label is not None:
        assert said == label


def test_averaged_weights_are_those_that_timm_takes(tmp_path):
    """Of the sets that timm's own loader knows, by that loader."""
    import_timm()
    from timm.models import load_state_dict

    for sets in (
        {"state_dict": OTHER, "state_dict_ema": GOOD}, {"model": OTHER, "model_ema": GOOD},
        {"state_dict": OTHER, "model": OTHER, "model_ema": GOOD}, {"model": GOOD}, {"state_dict": GOOD, "epoch": 1},
    ):  # fmt: skip
        _, state = loaded(tmp_path, sets)
        assert same(state, load_state_dict(str(tmp_path / "w.pth"), use_ema=True))


def in_shards(folder, save, state=GOOD, ending="safetensors"):
    """Two files with every other tensor, and their index, as transformers writes them."""
    names = sorted(state)
    files = {f"model-{i + 1:05d}-of-00002.{ending}": names[i::2] for i in range(2)}
    for file, held in files.items():
        save({name: state[name].contiguous() for name in held}, folder / file)
    found = {"metadata": {"total_size": 1}, "weight_map": {n: file for file, held in files.items() for n in held}}
    index = folder / f"model.{ending}.index.json"
    index.write_text(json.dumps(found))
    return index


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_the_index_of_several_files_loads_them_all(tmp_path, ending):
    save = safetensors.torch.save_file if ending == "safetensors" else torch.save
    index, net = in_shards(tmp_path, save, ending=ending), Net(2)
    assert load_into(net, index, "net", 10) == index.name
    assert same(net.state_dict())
    before = weights_digest(index)
    changed_file = tmp_path / f"model-00002-of-00002.{ending}"
    held = {n: v + 1 for n, v in _content(changed_file).items()}
    save(held, changed_file)
    assert weights_digest(index) != before


INDICES = {
    "no json": ("{", "is damaged"),
    "no map": ("{}", "has no weight_map"),
    "a list": ('{"weight_map": []}', "is damaged"),
    "a way out": ('{"weight_map": {"a": "../w.safetensors"}}', "no file beside it"),
    "gone": ('{"weight_map": {"a": "gone.safetensors"}}', "not beside it: gone.safetensors"),
    "another tensor": ('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "has no a, which model"),
}


@pytest.mark.parametrize("name", INDICES)
def test_a_damaged_index_is_one_line(tmp_path, name):
    index = in_shards(tmp_path, safetensors.torch.save_file)
    content, words = INDICES[name]
    index.write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        load_into(Net(), index, "net", 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors", "named_wrongly.pth"])
def test_half_precision_of_every_format_becomes_float32(tmp_path, kind, name):
    half = {k: v.to(kind) if v.is_floating_point() else v for k, v in GOOD.items()}
    path, net = tmp_path / name, Net(2)
    if "safetensors" in name or "wrongly" in name:
        safetensors.torch.save_file(half, str(path))
    else:
        torch.save(half, path)
    assert load_into(net, path, "net", 10) == name
    assert same(net.state_dict(), half)
    assert all(p.dtype is torch.float32 for p in net.parameters())


def test_a_path_of_another_system_lies_beside_weights(tmp_path):
    assert same(loaded(tmp_path, {"model": GOOD, "out": pathlib.Path("/runs/1")})[1])


def changed(name, value, state=GOOD):
    return {**state, name: torch.full_like(state[name], value, dtype=torch.float64)}


SCRIPTED = "scripted"
REFUSED = {
    "nan": (changed("head.weight", float("nan")), r"head\.weight holds NaN"),
    "infinite": (changed("stem.0.bias", float("inf")), r"stem\.0\.bias holds NaN or inf"),
    "too large for float32": (changed("head.bias", 1e300), r"head\.bias holds NaN or inf"),
    "nan statistics": (changed("stem.1.running_var", float("nan")), r"stem\.1\.running_var holds NaN"),
    "nan in a mask": (changed("mask", float("nan")), "mask holds NaN"),
    "int8 weights": ({**GOOD, "head.weight": torch.ones(10, 4, dtype=torch.int8)}, r"head\.weight holds int8"),
    "complex": ({**GOOD, "head.weight": torch.ones(10, 4, dtype=torch.complex64)}, r"head\.weight holds complex64"),
    "whole torch module": (nn.Linear(2, 2), r"holds a whole module \(torch\.nn\.modules\.linear\.Linear\).*state_dict"),
    "whole own module": (Net(), r"holds a whole module or other objects \(.*Net\).*save model\.state_dict"),
    "module in a set": ({"model": Net()}, r"whole module or other objects .*save model\.state_dict"),
    "nothing": ({}, "holds no state dict"),
    "no names": ([1, 2], "holds no state dict"),
    "a tensor": (torch.zeros(3), "holds no state dict"),
    "numbers alone": ({"epoch": 3}, "holds no state dict"),
    "missing": ({k: v for k, v in GOOD.items() if k != "head.bias"}, r"1 keys missing \(first head\.bias\)"),
    "unknown": ({**GOOD, "extra": torch.zeros(1)}, r"1 unknown keys \(first extra\)"),
    "parallel, one missing": (renamed("module.", {k: v for k, v in GOOD.items() if k != "mask"}), "first mask"),
    "shapes": ({**GOOD, "stem.0.bias": torch.zeros(5)}, r"shapes that differ \(first stem\.0\.bias\)"),
    "classes": ({**GOOD, "head.weight": torch.zeros(7, 4), "head.bias": torch.zeros(7)}, "use --classes 7"),
    "classes, parallel": (
        renamed("module.", {**GOOD, "head.weight": torch.zeros(7, 4), "head.bias": torch.zeros(7)}), "use --classes 7",
    ),
    "scalar head": ({**GOOD, "head.weight": torch.tensor(1.0)}, "shapes that differ"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_weights_is_refused_with_the_exact_reason(tmp_path, name):
    content, words = REFUSED[name]
    with pytest.raises((InputError, WeightsError), match=words) as caught:
        loaded(tmp_path, content)
    said = str(caught.value)
    assert "\n" not in said
    assert "\x1b" not in said
    assert "weights_only" not in said


CONTENTS = {
    "empty": b"", "text": b"a\nb\n", "zip": b"PK\3\4" + bytes(40), "pickle": b"\x80\2K\1.", "json": b'{"a": 1}',
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "header": b"\xff" * 8 + b"{",
    "protocol 4": pickle.dumps({"a": 1}, 4), "evil": b"cos\nsystem\n(S'echo harm'\ntR.",
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", CONTENTS)
def test_bytes_that_are_no_weights_are_one_line(tmp_path, name, suffix, capfd, recwarn):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(CONTENTS[name])
    with pytest.raises(QhyvitError) as caught:
        load_into(Net(), path, "net", 10)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert "harm" not in capfd.readouterr().out
    assert recwarn.list == []
    if name == "lfs":
        assert "git lfs pull" in str(caught.value)


def test_a_script_archive_and_a_folder_are_named(tmp_path, recwarn):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "s.pt"))
    recwarn.clear()  # of making it
    with pytest.raises(InputError, match=r"TorchScript archive.*state_dict"):
        load_into(Net(), tmp_path / "s.pt", "net", 10)
    with pytest.raises(InputError, match="is a folder"):
        load_into(Net(), tmp_path, "net", 10)
    with pytest.raises(InputError, match="does not exist"):
        load_into(Net(), tmp_path / "none.pth", "net", 10)
    assert recwarn.list == []


def test_quantized_and_sparse_tensors_are_no_weights(tmp_path):
    for odd in (torch.quantize_per_tensor(torch.ones(10, 4), 0.1, 0, torch.qint8), torch.ones(10, 4).to_sparse()):
        with pytest.raises(QhyvitError):
            loaded(tmp_path, {**GOOD, "head.weight": odd})


def test_random_weights_leave_what_is_a_constant_of_the_network():
    """CSATv2 holds the matrix of its cosine transform and variances in buffers: drawn at random they made NaN."""
    net = nn.BatchNorm2d(4)
    constants = {"var": torch.full((3,), 2.0), "transform": torch.eye(3), "scale": torch.tensor(1.5)}
    for name, value in constants.items():
        net.register_buffer(name, value.clone())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    randomize(net, 1)
    after = net.state_dict()
    kept = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert kept == {*constants, "num_batches_tracked"}
