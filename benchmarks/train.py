"""Trains the small models of ``benchmarks.families`` on Imagenette; resumes from its last epoch.

Needs the machine to itself: about two to three quarters of an hour a model on two cores. Example:

    python -m benchmarks.train mobilevit_imagenette --data imagenette_160/
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import nn

from benchmarks._files import RESULTS, pixels_of, ranked_images
from benchmarks.families import CLASSES, FAMILIES
from qhyvit import files
from qhyvit_device.preprocess import Preprocess

WEIGHTS = Path(__file__).parent / "weights"
BATCH, SMOOTHING, DECAY = 64, 0.1, 0.05
SMALLEST, RATIO = 0.35, 4 / 3  # random crops: least part of the area, most stretched
LOG = ("epoch", "learning_rate", "loss", "top1_percent", "seconds")


@dataclass(frozen=True)
class Recipe:
    """Epochs, and the highest learning rate of AdamW (one cycle)."""

    epochs: int
    rate: float = 2e-3


RECIPES = {
    "mobilevit_imagenette": Recipe(24),
    "mobilevitv2_imagenette": Recipe(16),
    "efficientformer_imagenette": Recipe(30),
    "efficientformerv2_imagenette": Recipe(14),
    "mobile_former_imagenette": Recipe(26),
}


@dataclass(frozen=True)
class Images:
    """[N, 3, H, W] uint8 and labels [N], 0 to 9 in the order of the class indices."""

    pixels: torch.Tensor
    labels: torch.Tensor


def load(folder: Path, part: str, size: int, how: Preprocess) -> Images:
    """All images of ``part``, whole, at ``size`` pixels."""
    listed = ranked_images(folder, folder / f"labels_{part}.csv", CLASSES)
    pixels = torch.from_numpy(pixels_of(listed.paths, (size, size), how)).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.from_numpy(listed.truth))


def normalized(pixels: torch.Tensor, how: Preprocess) -> torch.Tensor:
    """uint8 [N, 3, H, W] -> what the network takes."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (how.mean, how.std))
    return ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def cropped(x: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """A random part of each image, stretched and mirrored at random, [N, 3, size, size]."""
    n = len(x)
    area = SMALLEST + (1 - SMALLEST) * torch.rand(n, generator=generator)
    stretch = RATIO ** (torch.rand(n, generator=generator) - 0.5)
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * mirror, height
    for axis, part in ((0, width), (1, height)):
        theta[:, axis, 2] = (1 - part) * (2 * torch.rand(n, generator=generator) - 1)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def accuracy(model: nn.Module, images: Images, how: Preprocess) -> float:
    """Top-1 in percent."""
    model.eval()
    with torch.no_grad():
        pairs = zip(images.pixels.split(100), images.labels.split(100), strict=True)
        hits = [(model(normalized(x, how)).argmax(1) == y).sum() for x, y in pairs]
    return 100 * float(sum(hits)) / len(images.labels)


def half(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict in float16."""
    state = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    return {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}


def save(model: nn.Module, path: Path) -> None:
    """Write the weights in float16; the file appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, safetensors.torch.save(half(model)))


class Training:
    """Model, optimizer and schedule, from the last finished epoch on."""

    def __init__(self, name: str, steps_an_epoch: int, checkpoint: Path) -> None:
        self.recipe, self.checkpoint, self.epoch = RECIPES[name], checkpoint, 0
        torch.manual_seed(0)
        self.model = FAMILIES[name]().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        plain = [p for p in self.model.parameters() if p.dim() <= 1]
        decayed = [p for p in self.model.parameters() if p.dim() > 1]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=self.recipe.rate, weight_decay=DECAY)
        total = self.recipe.epochs * steps_an_epoch
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, self.recipe.rate, total, pct_start=0.15)
        if checkpoint.exists():
            saved = torch.load(checkpoint, weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            self.epoch = int(saved["epoch"])

    def run_epoch(self, images: Images, size: int, how: Preprocess) -> float:
        """One pass over all images; the mean loss."""
        generator = torch.Generator().manual_seed(self.epoch)
        order = torch.randperm(len(images.labels), generator=generator)
        batches = order[: len(order) // BATCH * BATCH].split(BATCH)
        self.model.train()
        losses = []
        for index in track(batches, f"epoch {self.epoch + 1}", disable=not sys.stderr.isatty()):
            x = cropped(normalized(images.pixels[index], how), size, generator)
            logits = self.model(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, images.labels[index], label_smoothing=SMOOTHING)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimizer.step()
            self.schedule.step()
            losses.append(float(loss.detach()))
        self.epoch += 1
        return float(np.mean(losses))

    def keep(self) -> None:
        """Write the checkpoint whole."""
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        state = {**{k: v.state_dict() for k, v in parts.items()}, "epoch": self.epoch}  # type: ignore[attr-defined]
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)


def train(name: str, folder: Path, checkpoint: Path, out: Path, log: Path) -> None:
    """Train to the end of the recipe; weights and log are written after every epoch."""
    facts: Any = FAMILIES[name]().preprocess
    size = int(facts["input_size"])
    how = Preprocess("squash", size, facts["interpolation"], tuple(facts["mean"]), tuple(facts["std"]))
    images, held_out = load(folder, "train", size, how), load(folder, "val", size, how)
    training = Training(name, len(images.labels) // BATCH, checkpoint)
    kept = log.read_text().splitlines()[1 : 1 + training.epoch] if training.epoch else []
    files.write_text(log, "\n".join([",".join(LOG), *kept]) + "\n")  # no row of an epoch that was not kept
    while training.epoch < training.recipe.epochs:
        started, rate = time.monotonic(), training.schedule.get_last_lr()[0]
        loss = training.run_epoch(images, size, how)
        score = accuracy(training.model, held_out, how)
        row = (training.epoch, f"{rate:.2e}", f"{loss:.4f}", f"{score:.2f}", f"{time.monotonic() - started:.0f}")
        with log.open("a", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerow(row)
        print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in zip(LOG, row, strict=True)), flush=True)
        save(training.model, out)
        training.keep()
    training.model.load_state_dict({k: v.float() for k, v in half(training.model).items()}, strict=False)
    print(f"{name}: top-1 {accuracy(training.model, held_out, how):.2f} % with float16 weights", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(FAMILIES))
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, val/ and labels_*.csv")
    parser.add_argument("--checkpoint", type=Path, help="resumes from here; default: NAME.pt")
    parser.add_argument("--threads", type=int, help="default: all cores")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    out, log = WEIGHTS / f"{args.name}.safetensors", RESULTS / f"training_{args.name}.csv"
    train(args.name, args.data, args.checkpoint or Path(f"{args.name}.pt"), out, log)


if __name__ == "__main__":
    main()
