"""Training on a few generated images: it learns, resumes where it stopped, and its weights load."""

import csv

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import train as training
from benchmarks.demo.images import draw_image
from benchmarks.families import CLASSES, FAMILIES, IMAGENET
from qhyvit.models import all_families
from qhyvit.models.shared.source import open_source

SIZE = 24


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(200, CLASSES)
        self.preprocess = {**IMAGENET, "input_size": SIZE, "resize": SIZE}

    def forward(self, x):
        return self.head(self.net(x))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "tiny", Tiny)
    monkeypatch.setitem(training.RECIPES, "tiny", training.Recipe(4, 1e-2))
    monkeypatch.setattr(training, "BATCH", 8)
    for part, count in (("train", 40), ("val", 20)):
        (tmp_path / part).mkdir()
        lines = ["file,class_index"]
        for i in range(count):
            draw_image(i % 10, np.random.default_rng(i), 48).save(tmp_path / part / f"{i}.png")
            lines.append(f"{part}/{i}.png,{100 + 7 * (i % 10)}")
        (tmp_path / f"labels_{part}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(place, name):
    training.train("tiny", place, place / f"{name}.pt", place / f"{name}.safetensors", place / f"{name}.csv")
    return (place / f"{name}.safetensors").read_bytes()


def test_a_run_that_was_stopped_ends_like_one_that_was_not(place, monkeypatch):
    whole = run(place, "whole")
    keep = training.Training.keep

    def stop(self):
        keep(self)
        if self.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Training, "keep", stop)
    with pytest.raises(KeyboardInterrupt):
        run(place, "cut")
    monkeypatch.setattr(training.Training, "keep", keep)
    assert run(place, "cut") == whole
    rows = list(csv.DictReader((place / "cut.csv").open()))
    assert [r["epoch"] for r in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_a_whole_crop_is_the_image(monkeypatch):
    monkeypatch.setattr(training, "SMALLEST", 1.0)
    monkeypatch.setattr(training, "RATIO", 1.0)
    x = torch.rand(16, 3, 12, 12)
    found = training.cropped(x, 12, torch.Generator().manual_seed(0))
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(found, x, strict=True)]
    mirrored = [torch.allclose(a, b.flip(2), atol=1e-5) for a, b in zip(found, x, strict=True)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert 0 < sum(mirrored) < 16


def test_crops_lie_inside_the_image():
    x = torch.arange(40.0)[None, None, None].expand(8, 3, 40, 40)  # each value is its column
    found = training.cropped(x, 20, torch.Generator().manual_seed(1))
    assert float(found.min()) >= 0
    assert float(found.max()) <= 39
    widths = (found[:, 0, 0, -1] - found[:, 0, 0, 0]).abs()
    assert float(widths.min()) > 0.35 * 39 * 0.5
    assert widths.unique().numel() == 8


@pytest.mark.parametrize("name", list(FAMILIES))
def test_each_trained_model_gets_its_familys_form(name):
    source = open_source(f"{training.__file__.replace('train.py', 'families.py')}:{name}")
    assert source.family in all_families()
    assert source.classes == CLASSES
    x = torch.rand(1, *source.shape)
    with torch.no_grad():
        expected = source.reference(x.permute(0, 3, 1, 2))
        found = source.rewrite(source.reference, source.shape)(x)
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max()) + 1e-5
