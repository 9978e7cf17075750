"""Trains the demo's MobileViT-xxs (10 classes, 128 x 128) on generated images; resumes from its last epoch."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.demo.images import SHAPES, draw_image
from qhyvit.models.shared.timm_models import import_timm

HERE = Path(__file__).parent
WEIGHTS = HERE / "mobilevit_xxs_shapes.safetensors"
LOG = HERE / "training_log.csv"
INPUT = 128
TRAIN_SEED = 1_000_000  # far from the seeds of the demo's own images


def make_set(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``count`` images of mixed classes as [N, 3, H, W] uint8, and their labels."""
    images, labels = [], []
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        labels.append(i % len(SHAPES))
        images.append(np.asarray(draw_image(labels[-1], rng, INPUT)))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def batches(
    images: torch.Tensor, labels: torch.Tensor, size: int, generator: torch.Generator
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Shuffled batches, float in 0..1, flipped at random (every class looks the same mirrored)."""
    found = []
    for index in torch.randperm(len(images), generator=generator).split(size):
        x = images[index].float() / 255
        flip = torch.rand(len(index), generator=generator) < 0.5
        x[flip] = x[flip].flip(3)
        found.append((x.to(memory_format=torch.channels_last), labels[index]))
    return found


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 in percent."""
    model.eval()
    with torch.no_grad():
        pairs = zip(images.split(100), labels.split(100), strict=True)
        hits = [(model(x.float() / 255).argmax(1) == y).sum() for x, y in pairs]
    return 100 * float(sum(hits)) / len(labels)


def save(model: nn.Module) -> None:
    """Write the weights in float16."""
    state = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    half = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}
    safetensors.torch.save_file(half, str(WEIGHTS))


def train(epochs: int, count: int, threads: int, checkpoint: Path) -> None:
    """Train from the last finished epoch to ``epochs``."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = import_timm().create_model("mobilevit_xxs", num_classes=len(SHAPES)).to(memory_format=torch.channels_last)
    images, labels = make_set(count, TRAIN_SEED)
    held_out = make_set(500, TRAIN_SEED + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, weight_decay=0.01)
    steps = epochs * -(-count // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, total_steps=steps, pct_start=0.2)
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
    for epoch in range(first, epochs):
        model.train()
        losses = []
        for x, y in batches(images, labels, 32, torch.Generator().manual_seed(epoch)):
            loss = F.cross_entropy(model(x), y, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        score = accuracy(model, *held_out)
        with LOG.open("a", newline="") as stream:
            csv.writer(stream).writerow((epoch + 1, f"{np.mean(losses):.4f}", f"{score:.1f}"))
        print(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.4f}, held-out top-1 {score:.1f} %", flush=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save({**state, "epoch": epoch + 1}, checkpoint)
        save(model)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: python -m benchmarks.demo.train --epochs 16")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--images", type=int, default=5000, help="generated training images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint", type=Path, default=Path("demo-training.pt"), help="resumes from here")
    args = parser.parse_args()
    if not args.checkpoint.exists():
        LOG.write_text("epoch,loss,held_out_top1_percent\n")
    train(args.epochs, args.images, args.threads, args.checkpoint)


if __name__ == "__main__":
    main()
