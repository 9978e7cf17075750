"""From a model's output codes to what people read: classes, values, an embedding, a map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qhyvit_device.errors import InputError
from qhyvit_device.manifest import Output

STRIP = 1 << 22  # float values of a map that are made at once
BACKGROUND = "background"  # the class of a map with one channel where that is below 0
FLOAT_CODES = 1024  # codes for a float output's 1.0


class Outputs(Mapping[str, np.ndarray]):
    """What a model gave for one input: codes by the output's name, in the model's order and the manifest's shapes.

    A float output's codes are its values.

    Attributes:
        facts: of each output by name.
    """

    def __init__(self, facts: Sequence[Output], codes: Sequence[np.ndarray]) -> None:
        self.facts = {fact.name: fact for fact in facts}
        self._codes = {f.name: found.reshape(f.shape) for f, found in zip(facts, codes, strict=True)}
        self.first = facts[0].name

    def __getitem__(self, name: str) -> np.ndarray:
        return self._codes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._codes)

    def __len__(self) -> int:
        return len(self._codes)

    def dequantized(self, name: str | None = None) -> np.ndarray:
        """Values of an output, float32, in its shape; of the first one without a name.

        Raises:
            KeyError: there is none of that name.
        """
        fact, codes = self.facts[name or self.first], self[name or self.first]
        if fact.scale is None or fact.zero_point is None:
            return codes.astype(np.float32)
        # float32 holds codes of 16 bits and their product with a scale, rounded once
        kind: Any = np.float32 if codes.itemsize <= 2 else np.float64
        values: np.ndarray = (codes.astype(kind) - kind(fact.zero_point)) * kind(fact.scale)
        return values.astype(np.float32, copy=False)

    def numbers(self, name: str | None = None) -> np.ndarray:
        """As :meth:`dequantized`, float64, one after the other.

        Raises:
            InputError: some are infinite, or no numbers.
        """
        values = self.dequantized(name).ravel().astype(np.float64)
        if not np.isfinite(values).all():
            raise InputError("the model gives values that are infinite or no numbers")
        return values

    def test_codes(self, step: int = 1) -> np.ndarray:
        """Every ``step``-th code of all outputs one after the other, int64, as a self test has them."""
        parts = [_steps(codes) if codes.dtype.kind == "f" else codes for codes in self._codes.values()]
        return np.concatenate([part.ravel().astype(np.int64) for part in parts])[::step]


def _steps(values: np.ndarray) -> np.ndarray:
    """Float values as codes: infinite ones, and those that are no numbers, as well."""
    with np.errstate(invalid="ignore", over="ignore"):
        found: np.ndarray = np.clip(np.rint(np.nan_to_num(values * FLOAT_CODES)), -(2**31), 2**31)
    return found


@dataclass(frozen=True)
class Prediction:
    """One class: its label, index, and probability 0..1."""

    label: str
    index: int
    probability: float


def predictions(
    outputs: Outputs, labels: Sequence[str], top: int | None = None, least: float = 0.0, *, several: bool
) -> list[Prediction]:
    """Classes of the first output, most probable first.

    Args:
        top: how many; None: all.
        least: those of at least this probability.
        several: whether several may be right at once: a sigmoid each in the place of a softmax over all. A single
            logit has a sigmoid in any case.

    Raises:
        InputError: see :meth:`Outputs.numbers`.
    """
    logits = outputs.numbers()
    if several or len(logits) == 1:
        shares = 0.5 + 0.5 * np.tanh(logits / 2)
    else:
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
    best = np.argsort(-logits, kind="stable")[:top]
    return [Prediction(labels[i], int(i), float(shares[i])) for i in best if shares[i] >= least]


@dataclass(frozen=True)
class NamedValue:
    """One value of a regression."""

    name: str
    value: float


def values(outputs: Outputs, labels: Sequence[str]) -> list[NamedValue]:
    """Every value by its label, else by its output's name, with its number where the output has several.

    Raises:
        InputError: see :meth:`Outputs.numbers`.
    """
    found = []
    for name in outputs:
        numbers = outputs.numbers(name).tolist()
        names = [name] if len(numbers) == 1 else [f"{name}[{i}]" for i in range(len(numbers))]
        if labels and name == outputs.first:
            names = [*labels]
        found += [NamedValue(*pair) for pair in zip(names, numbers, strict=True)]
    return found


def embedding(outputs: Outputs) -> np.ndarray:
    """The first output as a vector of length 1, [D] float32; zeros where it is all zeros.

    Raises:
        InputError: see :meth:`Outputs.numbers`.
    """
    vector = outputs.numbers()
    return (vector / (np.linalg.norm(vector) or 1.0)).astype(np.float32)


@dataclass(frozen=True)
class ClassShare:
    """A class of a map: its label, index, and share of the pixels, 0..1."""

    label: str
    index: int
    share: float


@dataclass(frozen=True, eq=False)
class SegmentationMap:
    """The class of each pixel.

    Args:
        classes: [height, width] uint16.
        labels: of all classes.
    """

    classes: np.ndarray
    labels: tuple[str, ...]

    def shares(self) -> list[ClassShare]:
        """The classes that are there, the largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=len(self.labels))
        order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        return [ClassShare(self.labels[i], int(i), float(counts[i] / self.classes.size)) for i in order]


def segmentation(outputs: Outputs, labels: Sequence[str], height: int, width: int) -> SegmentationMap:
    """The map of the first output, [1, h, w, classes] logits, which are resized bilinearly before the largest counts.

    One channel tells its class (above 0) from the background (class 0).

    Args:
        labels: one a channel.
        height: of the map, pixels.
        width: of the map, pixels.

    Raises:
        InputError: some logits are infinite, or no numbers.
    """
    fact, codes = outputs.facts[outputs.first], outputs[outputs.first][0]
    if codes.dtype.kind == "f" and not np.isfinite(codes).all():
        raise InputError("the model gives values that are infinite or no numbers")
    # codes of one scale: the largest logit has the largest code, also of what lies between
    found = np.empty((height, width), np.uint16)
    columns = _between(width, codes.shape[1])
    rows = max(STRIP // (max(width, codes.shape[1]) * codes.shape[2]), 1)
    for first in range(0, height, rows):
        strip = _mixed(codes, [part[first : first + rows] for part in _between(height, codes.shape[0])])
        logits = _mixed(strip.swapaxes(0, 1), columns).swapaxes(0, 1)  # [rows, width, classes]
        one = logits.shape[2] == 1
        found[first : first + rows] = logits[..., 0] > (fact.zero_point or 0) if one else logits.argmax(2)
    return SegmentationMap(found, (BACKGROUND, *labels) if codes.shape[2] == 1 else tuple(labels))


def _between(count: int, known: int) -> list[np.ndarray]:
    """For ``count`` pixels over ``known`` ones, by their centres: the one before, the one behind, and its share."""
    at = np.clip((np.arange(count) + 0.5) * (known / count) - 0.5, 0, known - 1)
    before = at.astype(np.int64)
    return [before, np.minimum(before + 1, known - 1), (at - before).astype(np.float32)]


def _mixed(codes: np.ndarray, places: Sequence[np.ndarray]) -> np.ndarray:
    """Values between those of the first axis, float32."""
    before, behind, share = places
    low = codes[before].astype(np.float32)
    found: np.ndarray = low + (codes[behind].astype(np.float32) - low) * share[:, None, None]
    return found
