"""Generates the demo's labelled images: ten shapes in any colour, size and rotation over busy backgrounds."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 160  # pixels, square
Points = list[tuple[float, float]]


def _polygon(corners: int, inner: float = 1.0) -> Points:
    """Regular polygon, or a star where ``inner`` < 1, around 0 with radius 1."""
    steps = corners if inner == 1.0 else 2 * corners
    radius = [1.0 if inner == 1.0 or i % 2 == 0 else inner for i in range(steps)]
    angle = [2 * math.pi * i / steps for i in range(steps)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radius, angle, strict=True)]


def _cross() -> Points:
    a, b = 1.0, 0.36
    return [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)]


def _crescent() -> Points:
    outer = [(math.cos(t), math.sin(t)) for t in np.linspace(0.6, 2 * math.pi - 0.6, 40)]
    inner = [(0.35 + 0.78 * math.cos(t), 0.78 * math.sin(t)) for t in np.linspace(2 * math.pi - 0.8, 0.8, 40)]
    return outer + inner


def _arrow() -> Points:
    return [(-1, -0.22), (0.1, -0.22), (0.1, -0.7), (1, 0), (0.1, 0.7), (0.1, 0.22), (-1, 0.22)]


def _ring(corners: int) -> Points:
    outer = _polygon(corners)
    inner = [(0.58 * x, 0.58 * y) for x, y in outer]
    return [*outer, outer[0], inner[0], *inner[::-1]]


SHAPES: dict[str, Callable[[], Points]] = {
    "disc": lambda: _polygon(40),
    "ring": lambda: _ring(40),
    "triangle": lambda: _polygon(3),
    "square": lambda: _polygon(4),
    "frame": lambda: _ring(4),
    "hexagon": lambda: _polygon(6),
    "star": lambda: _polygon(5, 0.45),
    "cross": _cross,
    "crescent": _crescent,
    "arrow": _arrow,
}


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """Smooth colour noise with a gradient."""
    coarse = rng.integers(2, 9)
    contrast = rng.uniform(0.15, 0.7)
    values = rng.uniform(40, 216, 3) * (1 - contrast) + rng.uniform(0, 256, (coarse, coarse, 3)) * contrast
    noise = Image.fromarray(values.astype(np.uint8))
    return noise.resize((size, size), Image.Resampling.BICUBIC)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    r, g, b = (int(v) for v in rng.integers(0, 256, 3))
    return r, g, b


def _clutter(draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: int) -> None:
    """Lines and small blobs that are no shape of ours."""
    for _ in range(int(rng.integers(2, 8))):
        x0, y0, x1, y1 = (float(v) for v in rng.uniform(0, size, 4))
        draw.line((x0, y0, x1, y1), fill=_colour(rng), width=int(rng.integers(1, 4)))
    for _ in range(int(rng.integers(0, 12))):
        x, y, r = float(rng.uniform(0, size)), float(rng.uniform(0, size)), float(rng.uniform(1, size / 40))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_colour(rng))


def _place(shape: Points, rng: np.random.Generator, size: int) -> Points:
    """Rotate, stretch, scale and move."""
    radius, angle = size * rng.uniform(0.16, 0.42), rng.uniform(0, 2 * math.pi)
    x0, y0 = rng.uniform(radius, size - radius, 2)
    stretch = rng.uniform(0.8, 1.25)
    c, s = math.cos(angle), math.sin(angle)
    return [(x0 + radius * (c * x * stretch - s * y), y0 + radius * (s * x * stretch + c * y)) for x, y in shape]


def draw_image(label: int, rng: np.random.Generator, size: int = SIZE) -> Image.Image:
    """One image of class ``label``; the same ``rng`` state gives the same image."""
    image = _background(rng, size)
    draw = ImageDraw.Draw(image)
    _clutter(draw, rng, size)
    points = _place(list(SHAPES.values())[label](), rng, size)
    under = np.asarray(image)[int(points[0][1]) % size, int(points[0][0]) % size].astype(int)
    colour = _colour(rng)
    while abs(np.array(colour) - under).sum() < 110:  # visible, if sometimes barely
        colour = _colour(rng)
    draw.polygon(points, fill=colour)
    if rng.random() < 0.5:
        _clutter(draw, rng, size)
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.6))))
    pixels = np.asarray(image, np.float64) * rng.uniform(0.5, 1.2) + rng.normal(0, rng.uniform(0, 20), (size, size, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def generate(folder: Path, count_per_class: int, seed: int, size: int = SIZE) -> None:
    """Write ``folder/<class>/NNNN.jpg``, ``labels.csv`` (file, class_index, label) and ``labels.txt``."""
    rows = []
    for label, name in enumerate(SHAPES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng((seed, label))
        for i in range(count_per_class):
            file = f"{name}/{i:04d}.jpg"
            draw_image(label, rng, size).save(folder / file, quality=88)
            rows.append((file, label, name))
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("file", "class_index", "label"))
        writer.writerows(rows)
    (folder / "labels.txt").write_text("\n".join(SHAPES) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python -m benchmarks.demo.images OUT --train 10 --val 50 --seed 0"
    )
    parser.add_argument("out", type=Path, help="folder to write train/ and val/ into")
    parser.add_argument("--train", type=int, default=10, help="images a class for calibration (default 10)")
    parser.add_argument("--val", type=int, default=50, help="images a class to evaluate on (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="seed; training used 1000000 and above")
    args = parser.parse_args()
    generate(args.out / "train", args.train, 2 * args.seed)
    generate(args.out / "val", args.val, 2 * args.seed + 1)


if __name__ == "__main__":
    main()
