"""Images on which the float and the integer file decide differently, and how confusions shift."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from qhyvit.evaluation import Predictions
from qhyvit.report.facts import Confusion, Difference, Examined, rounded
from qhyvit.verify.accuracy import count

SHOWN, CONFUSIONS = 24, 12
THUMBNAIL, QUALITY = 96, 70  # pixels, JPEG


def thumbnail(pixels: np.ndarray) -> str:
    """[H, W, C] as a small JPEG in base64; of no picture the first channel, from least to most."""
    if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3):
        plane = pixels[..., :1].astype(np.float64)
        low, high = plane.min(), plane.max()
        pixels = np.rint(255 * (plane - low) / max(high - low, 1e-12)).astype(np.uint8)
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return base64.b64encode(stream.getvalue()).decode()


def _best(logits: np.ndarray) -> np.ndarray:
    """Class of each row; ties go to the lower index, as everywhere."""
    return np.argsort(-logits, axis=1, kind="stable")[:, 0]


def mean_kl(floating: np.ndarray, integer: np.ndarray) -> float:
    """Mean KL(softmax(floating) || softmax(integer)) of logits [N, classes]."""
    p, q = (x.astype(np.float64) - x.max(axis=1, keepdims=True) for x in (floating, integer))
    p, q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in (p, q))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _probability(logits: np.ndarray) -> float:
    shares = np.exp(logits.astype(np.float64) - logits.max())
    return rounded(float(shares.max() / shares.sum()))


def examine(found: Predictions, labels: Sequence[str], source: str) -> Examined:
    """Everything about one set of images; differences come surest in float first.

    Raises:
        ValueError: there is no float model to compare with.
    """
    if found.floating is None:
        raise ValueError("needs predictions of the float model")
    f, q = _best(found.floating), _best(found.integer)
    differing = np.flatnonzero(f != q)
    rows = [_difference(found, labels, int(i), int(f[i]), int(q[i])) for i in differing]
    rows.sort(key=lambda d: (-d.float_probability, d.name))
    truth = found.classes
    accuracy = None
    if truth is not None:
        float_score, score = count(found.floating, truth), count(found.integer, truth, found.floating)
        accuracy = {"float": float_score.to_json(), "integer": score.to_json()}
    shifts = () if truth is None else _confusions(truth, f, q, labels)
    agree = len(f) - len(differing)
    return Examined(
        source,
        len(f),
        agree,
        rounded(mean_kl(found.floating, found.integer)),
        accuracy,
        len(differing),
        tuple(rows[:SHOWN]),
        shifts,
    )


def _difference(found: Predictions, labels: Sequence[str], i: int, f: int, q: int) -> Difference:
    assert found.floating is not None
    return Difference(
        found.names[i], None if found.classes is None else labels[int(found.classes[i])],
        labels[f], _probability(found.floating[i]), labels[q], _probability(found.integer[i]),
        thumbnail(found.pixels(i)),
    )  # fmt: skip


def _confusions(truth: np.ndarray, f: np.ndarray, q: np.ndarray, labels: Sequence[str]) -> tuple[Confusion, ...]:
    """Wrong answers whose number changed most, by pair of classes."""
    wrong_f = Counter((int(t), int(p)) for t, p in zip(truth, f, strict=True) if t != p)
    wrong_q = Counter((int(t), int(p)) for t, p in zip(truth, q, strict=True) if t != p)
    pairs = [p for p in wrong_f.keys() | wrong_q.keys() if wrong_f[p] != wrong_q[p]]
    pairs.sort(key=lambda p: (-abs(wrong_q[p] - wrong_f[p]), p))
    return tuple(Confusion(labels[t], labels[p], wrong_f[t, p], wrong_q[t, p]) for t, p in pairs[:CONFUSIONS])
