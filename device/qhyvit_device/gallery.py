"""Nearest neighbours among the pictures of a folder, by the embeddings of one model."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qhyvit_device.errors import InputError
from qhyvit_device.preprocess import images_in
from qhyvit_device.runner import Model


@dataclass(frozen=True)
class Neighbour:
    """A picture of a gallery, by its path below the folder, and the cosine of its embedding to another's."""

    image: str
    cosine: float


class Gallery:
    """Pictures of a folder and the folders below it, which may say what they show.

    Args:
        model: gives the embeddings; those of another model mean nothing beside them.
        folder: hidden files are left out.
        mode: as for :meth:`qhyvit_device.runner.Model.embed`.
        refuse: is told of each picture that cannot be read; without it the first one is an error.

    Raises:
        InputError: no such folder, or no picture in it that can be read.
    """

    def __init__(
        self, model: Model, folder: Path, mode: str | None = None,
        refuse: Callable[[Path, InputError], None] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.paths = folder, []
        vectors = []
        for path in images_in(folder):
            try:
                vectors.append(model.embed(path, mode))
            except InputError as error:
                if refuse is None:
                    raise
                refuse(path, error)
            else:
                self.paths.append(path)
        if not vectors:
            raise InputError(f"{folder}: none of its images can be read")
        self._vectors = np.stack(vectors)

    def nearest(self, embedding: np.ndarray, top: int = 5, without: Path | None = None) -> list[Neighbour]:
        """The ``top`` pictures whose embeddings have the largest cosine to one of length 1, [D].

        Args:
            without: a file that may lie in the gallery itself, and is left out there.
        """
        cosines = self._vectors @ embedding
        found: list[Neighbour] = []
        own = None if without is None else os.path.realpath(without)
        for i in np.argsort(-cosines, kind="stable"):
            if len(found) == top:
                break
            if own is None or os.path.realpath(self.paths[i]) != own:
                name = str(self.paths[i].relative_to(self.folder))
                found.append(Neighbour(name, float(np.clip(cosines[i], -1, 1))))
        return found
