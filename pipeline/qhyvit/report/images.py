"""Images on which the float and the integer file say different things, and how confusions shift."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from qhyvit.evaluation import evaluated, shown
from qhyvit.report.facts import Confusion, Difference, Examined, rounded
from qhyvit.tasks.shared.accuracy import ranked
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.score import Truth
from qhyvit.tasks.shared.task import Task
from qhyvit_device.overlay import canvas, palette

SHOWN, CONFUSIONS = 24, 12
THUMBNAIL, QUALITY = 96, 70  # pixels, JPEG
MAP_THUMBNAIL = 192  # of a map, whose pixels are what is to be seen
CHANGED = (220, 40, 40)  # colour of pixels that differ


@dataclass(frozen=True)
class Predictions:
    """Outputs [N, outputs] of both files on the same images.

    Args:
        task: what they mean, and ``layout``, how they lie; ``labels``: names of classes or values.
        names: of the images; ``truth``: what is right about them, None where nothing is known.
        pixels: image i as the models see it, [H, W, C].
    """

    task: Task
    layout: Layout
    labels: Sequence[str]
    names: Sequence[str]
    truth: Any
    integer: np.ndarray
    floating: np.ndarray
    pixels: Callable[[int], np.ndarray]


def thumbnail(pixels: np.ndarray, side: int = THUMBNAIL) -> str:
    """[H, W, C] as a small JPEG in base64; what is no picture is gray."""
    is_picture = pixels.dtype == np.uint8 and pixels.shape[2] == 3
    image = Image.fromarray(pixels if is_picture else canvas(pixels))
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return base64.b64encode(stream.getvalue()).decode()


def examine(found: Predictions, source: str) -> Examined:
    """Everything about one set of images; what differs most comes first."""
    task, layout = found.task, found.layout
    outcome = evaluated(task, layout, found.integer, found.floating, found.truth, source, labels=found.labels)
    apart = task.apart(found.floating, found.integer, layout)
    differing = [int(i) for i in np.lexsort((np.array(found.names), -apart)) if apart[i] > 0]
    better = np.zeros(len(apart))
    if outcome.integer is not None and outcome.floating is not None:
        better = outcome.integer.each.astype(np.float64) - outcome.floating.each.astype(np.float64)
    rows = tuple(_difference(found, i, float(apart[i]), float(better[i])) for i in differing[:SHOWN])
    reference, outputs = (torch.from_numpy(x.astype(np.float64)) for x in (found.floating, found.integer))
    distance = float(task.measure(layout, reference).distance(reference, outputs).mean())
    assert outcome.alike is not None
    return Examined(
        source, len(apart), task.reading, rounded(outcome.alike.reading), outcome.alike.text, rounded(distance),
        outcome.to_json(), _figures(outcome), len(differing), rows, _confusions(found),
    )  # fmt: skip


def _figures(outcome: Any) -> tuple[tuple[str, str, str], ...]:
    """(title, float, integer) of every figure of the labels."""
    if outcome.integer is None or outcome.floating is None:
        return ()
    return tuple(
        (title, shown(name, outcome.floating.figures[name]), shown(name, outcome.integer.figures[name]))
        for name, title in outcome.task.columns.items()
    )


def _difference(found: Predictions, i: int, apart: float, better: float) -> Difference:
    said = [found.task.said(x[i], found.layout, found.labels) for x in (found.floating, found.integer)]
    is_class = found.task.truth is Truth.CLASS and found.truth is not None and len(found.labels) > 0
    truth = found.labels[int(found.truth[i])] if is_class else None
    return Difference(
        found.names[i], truth, said[0], said[1], rounded(apart), None if better == 0 else better > 0,
        _pictures(found, i),
    )  # fmt: skip


def _pictures(found: Predictions, i: int) -> tuple[str, ...]:
    """The image, and of maps both, and the pixels that differ."""
    if found.task.picture is None:
        return (thumbnail(found.pixels(i)),)
    maps = [found.task.picture(x[i], found.layout) for x in (found.floating, found.integer)]
    colours = palette(max(2, found.layout.shapes[0][-1]))
    drawn = [colours[m] for m in maps]
    drawn.append(np.where((maps[0] != maps[1])[..., None], CHANGED, drawn[0] // 4 + 190).astype(np.uint8))
    height, width = found.pixels(i).shape[:2]
    large = [np.asarray(Image.fromarray(x).resize((width, height), Image.Resampling.NEAREST)) for x in drawn]
    return tuple(thumbnail(x, MAP_THUMBNAIL) for x in (found.pixels(i), *large))


def _confusions(found: Predictions) -> tuple[Confusion, ...]:
    """Wrong answers of a classification whose number changed most, by pair of classes."""
    if not found.task.one_class or found.truth is None:
        return ()
    f, q = (ranked(x)[:, 0] for x in (found.floating, found.integer))
    wrong_f = Counter((int(t), int(p)) for t, p in zip(found.truth, f, strict=True) if t != p)
    wrong_q = Counter((int(t), int(p)) for t, p in zip(found.truth, q, strict=True) if t != p)
    pairs = [p for p in wrong_f.keys() | wrong_q.keys() if wrong_f[p] != wrong_q[p]]
    pairs.sort(key=lambda p: (-abs(wrong_q[p] - wrong_f[p]), p))
    labels = found.labels
    return tuple(Confusion(labels[t], labels[p], wrong_f[t, p], wrong_q[t, p]) for t, p in pairs[:CONFUSIONS])
