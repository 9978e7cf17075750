"""A network with one attention block that is exported and calibrated in seconds, for runs that are made many times."""

import numpy as np
import torch
from PIL import Image
from torch import nn

SIZE, CLASSES = 16, 4


class Tiny(nn.Module):
    """[1, 3, 16, 16] -> [1, 4]."""

    def __init__(self):
        super().__init__()
        self.preprocess = {"input_size": SIZE, "resize": SIZE}
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, CLASSES)
        with torch.no_grad():
            for layer in (self.stem, self.query, self.key, self.head):
                layer.weight *= 4

    def features(self, x):
        """[1, 8]."""
        x = nn.functional.silu(self.stem(x)).flatten(2).transpose(1, 2)
        attention = (self.query(x) @ self.key(x).transpose(1, 2)).softmax(-1)
        return (x + attention @ self.value(x)).mean(1)

    def forward(self, x):
        return self.head(self.features(x))


class Two(Tiny):
    """The same with two outputs, [1, 4] and [1, 8]."""

    def forward(self, x):
        features = self.features(x)
        return {"head": self.head(features), "features": features}


def make():
    """For ``--model-py``."""
    return Tiny()


def two():
    """The same."""
    return Two()


def pictures(folder, count, seed=0):
    """Write PNG files of noise over a slope, and labels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        slope = np.linspace(0, 120, SIZE)[None, :, None] * rng.random(3)
        pixels = slope + rng.integers(0, 120, (SIZE, SIZE, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    rows = ["file,class_index", *(f"{i}.png,{i % CLASSES}" for i in range(count))]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
