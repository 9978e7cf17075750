"""The head of attributes: classes have what their names say, no image that calibrates trains, weights are the least."""

import csv
import shutil
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from scipy.special import expit

from benchmarks import attributes as head
from benchmarks.families import LABELS, mobilevitv2_075_attributes, mobilevitv2_075_features
from qhyvit import data
from qhyvit.models.shared.timm_models import import_timm
from qhyvit_device.preprocess import load_image

OF_NAMES = {
    "golden retriever": "animal mammal carnivore dog", "Mexican hairless": "animal mammal carnivore dog",
    "timber wolf": "animal mammal carnivore", "tabby": "animal mammal carnivore feline",
    "cheetah": "animal mammal carnivore feline", "meerkat": "animal mammal carnivore",
    "otter": "animal mammal carnivore", "giant panda": "animal mammal carnivore", "dugong": "animal mammal",
    "platypus": "animal mammal", "zebra": "animal mammal hoofed", "indri": "animal mammal primate",
    "orangutan": "animal mammal primate",
    "cock": "animal bird", "black swan": "animal bird", "albatross": "animal bird",
    "bullfrog": "animal reptile_or_amphibian", "triceratops": "animal reptile_or_amphibian",
    "sidewinder": "animal reptile_or_amphibian snake", "tench": "animal fish", "puffer": "animal fish",
    "trilobite": "animal arthropod", "isopod": "animal arthropod", "lycaenid": "animal arthropod insect",
    "jellyfish": "animal", "starfish": "animal", "canoe": "vehicle boat", "yawl": "vehicle boat",
    "airliner": "vehicle", "unicycle": "vehicle", "violin": "instrument", "accordion": "instrument",
    "abaya": "clothing", "Windsor tie": "clothing", "guacamole": "food", "eggnog": "food", "pizza": "food",
    "broccoli": "food fruit_or_vegetable", "pomegranate": "food fruit_or_vegetable", "alp": "landscape",
    "volcano": "landscape", "coral reef": "landscape", "hay": "", "cup": "", "bubble": "", "abacus": "", "groom": "",
}  # fmt: skip


def classes_named():
    import_timm()
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    found = [info.index_to_description(i).split(",")[0] for i in range(1000)]
    return {name: found.index(name) for name in OF_NAMES}


def test_classes_have_the_attributes_of_their_names():
    places = classes_named()
    rows = head.attributes(np.array([places[name] for name in OF_NAMES]))
    named = [" ".join(name for name, has in zip(head.CLASSES, row, strict=True) if has) for row in rows]
    assert dict(zip(OF_NAMES, named, strict=True)) == OF_NAMES
    assert len(head.CLASSES) == LABELS


@pytest.fixture
def problem():
    """Features of which one hardly varies, and two labels of other frequency."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator, dtype=torch.float64) * torch.tensor([1, 2, 1, 0.5, 1, 1e-7]) + 3
    noise = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    return x, (x[:, :2] - 3 - torch.tensor([0.0, 2.0]) + noise > 0).double()


def test_the_penalised_loss_has_no_slope_where_the_fit_ends(problem):
    x, y = (v.numpy() for v in problem)
    made = head.fitted(*problem, 0.05)
    weight, bias = made.weight.detach().numpy(), made.bias.detach().numpy()
    wrong = expit(x @ weight.T + bias) - y
    spread = np.sqrt(np.mean((x - x.mean(0)) ** 2))
    slope = wrong.T @ (x - x.mean(0)) / spread / len(x) + 0.05 * weight * spread
    assert np.abs(slope).max() < 1e-5
    assert np.abs(wrong.mean(0)).max() < 1e-5
    assert np.abs(weight[:, 5]).max() < 1e-4 < np.abs(weight[:, :2]).max()


def test_noise_wants_the_largest_penalty_and_sure_labels_the_smallest(problem):
    x, _ = problem
    coins = torch.randint(2, (200, 1), generator=torch.Generator().manual_seed(1)).double()
    assert head.best_penalty(x, coins) == max(head.PENALTIES)
    assert head.best_penalty(x, (x[:, :1] > 3).double()) == min(head.PENALTIES)


def pictures(folder, classes, first):
    folder.mkdir()
    for number in range(len(classes)):
        noise = np.random.default_rng(first + number).integers(0, 256, (4, 6, 3), np.uint8)
        Image.fromarray(noise).resize((48, 40)).save(folder / f"{number}.png")
    rows = [f"{number}.png,{place}" for number, place in enumerate(classes)]
    (folder / "labels.csv").write_text("\n".join(["file,class_index", *rows]) + "\n")


def test_no_image_that_calibrates_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(head, "CALIBRATION", 5)
    pictures(tmp_path / "train", range(12), 0)
    shutil.copy(tmp_path / "train" / "0.png", tmp_path / "train" / "again.png")
    (tmp_path / "train" / "labels.csv").open("a").write("again.png,0\n")
    found = head.training_images(tmp_path / "train")
    used = data.calibration_images(tmp_path / "train", 5, 0)
    contents = {p.read_bytes() for p in found.paths}
    assert contents.isdisjoint(p.read_bytes() for p in used.values())
    assert len(contents) == 12 - 5
    assert [int(p.stem) if p.stem != "again" else 0 for p in found.paths] == list(found.truth)


def test_the_command_writes_weights_and_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(head, "CALIBRATION", 2)
    monkeypatch.setattr(head, "PENALTIES", (0.1,))
    for first, (name, classes) in enumerate(
        zip((head.TRAINING, *head.EVALUATION), ([151, 404, 7, 999, 0, 933, 152, 8], [207], [404, 1]), strict=True)
    ):
        pictures(tmp_path / name, classes, 100 * first)
    torch.manual_seed(0)
    net = mobilevitv2_075_features().net
    safetensors.torch.save_file(net.state_dict(), tmp_path / "net.safetensors")
    words = ["--data", tmp_path, "--weights", tmp_path / "net.safetensors", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["attributes", *map(str, words)])
    head.main()
    with (tmp_path / "out" / "attributes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [r["file"] for r in rows] == [f"{head.EVALUATION[i]}/{name}.png" for i, name in ((0, 0), (1, 0), (1, 1))]
    assert [(r["dog"], r["vehicle"], r["animal"]) for r in rows] == [("1", "0", "1"), ("0", "1", "0"), ("0", "0", "1")]
    made = mobilevitv2_075_attributes().eval()
    made.load_state_dict(safetensors.torch.load_file(tmp_path / "out" / f"{head.NAME}.safetensors"))
    images = head.training_images(tmp_path / head.TRAINING)
    shown = [np.asarray(load_image(p).resize((256, 256), Image.Resampling.BICUBIC)) for p in images.paths]
    with torch.no_grad():
        logits = made(torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float() / 255).numpy()
    truth = head.attributes(images.truth)
    assert logits.mean(0).argmax() == truth.mean(0).argmax()
    assert np.abs(expit(logits).mean(0) - truth.mean(0)).max() < 2e-3  # a fitted bias makes both frequencies alike
