"""Images and arrays of folders, to calibrate and evaluate on, by the device's own preprocessing; content hashes."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from qhyvit import files
from qhyvit.errors import InputError
from qhyvit.progress import Log, silent
from qhyvit.tasks.shared.label_map import read_label_map
from qhyvit.tasks.shared.score import LabelMaps, Truth
from qhyvit_device.arrays import Shape, checked, is_array_file, read_array
from qhyvit_device.preprocess import (
    Preprocess,
    folder_preprocess,
    images_in,
    load_image,
    load_input,
    normalize,
    to_pixels,
)

T = TypeVar("T")
VERIFY_IMAGES = 100  # by default
CROPPED = 0.6, 0.9  # how long a crop's sides are, as a share of the image's
EXPORT_IMAGES = 4  # real ones that the exported file is compared with the user's module on


def hash_files(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file: equal pictures are found whatever their names.

    Raises:
        InputError: one cannot be read.
    """
    try:
        return [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]
    except OSError as error:
        raise InputError(f"cannot read image {error.filename}: {error.strerror}") from error


def combined_hash(hashes: Sequence[str]) -> str:
    """One hash of a set of images, whatever their order."""
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def by_content(paths: Sequence[Path]) -> dict[str, Path]:
    """The first file of each content, by its SHA-256.

    Raises:
        InputError: one cannot be read.
    """
    found: dict[str, Path] = {}
    for content, path in zip(hash_files(paths), paths, strict=True):
        found.setdefault(content, path)
    return found


def draw(contents: Mapping[str, Path], count: int, seed: int) -> dict[str, Path]:
    """``count`` of ``contents`` in an order of their own; all of them if there are no more.

    Which ones, and their order, depend on the seed and on what is in the files, not on their names. A smaller count
    gives the first ones of a larger; another file in the folder takes the place of one at most.
    """

    def place(content: str) -> bytes:
        return hashlib.sha256(f"{seed} {content}".encode()).digest()

    return {content: contents[content] for content in sorted(contents, key=place)[:count]}


@dataclass(frozen=True)
class Labelled:
    """Images with what is right about each: [N] class indices, [N, values], label maps, or None where nothing is known.

    ``names``: of the values, as the head of their columns has them.
    """

    paths: list[Path]
    truth: Any
    names: tuple[str, ...] = ()

    def part(self, places: Sequence[int]) -> Labelled:
        """Some of the images."""
        truth = self.truth
        if isinstance(truth, LabelMaps):
            truth = replace(truth, paths=[truth.paths[i] for i in places])
        elif truth is not None:
            truth = truth[list(places)]
        return Labelled([self.paths[i] for i in places], truth, self.names)


def subset(labelled: Labelled, count: int, seed: int) -> Labelled:
    """``count`` of the images, drawn by content (:func:`draw`), in their order; all of them if there are no more."""
    if len(labelled.paths) <= count:
        return labelled
    kept = set(draw(by_content(labelled.paths), count, seed).values())
    return labelled.part([i for i, path in enumerate(labelled.paths) if path in kept])


def read_labels(folder: Path, labels: Path | None = None, truth: Truth = Truth.CLASS) -> Labelled:
    """Read ``labels.csv`` of a folder (or the file named); paths in it are relative to the folder.

    Beside the column ``file`` it has ``class_index``, or for values a column for each of them.

    Raises:
        InputError: no such file, no UTF-8, columns or values missing, an image missing, a class index that is no whole
            number from 0, a value that is no number; with the row, the header being row 1.
    """
    source = labels or folder / "labels.csv"
    if not folder.is_dir():
        raise InputError(f"image folder {folder} does not exist")
    if not source.is_file():
        raise InputError(f"cannot read labels {source}: there is no such file; name them with --labels")
    reader = csv.reader(io.StringIO(files.read_text(source, "labels"), newline=""))
    try:
        header = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise InputError(f"labels {source}, row {reader.line_num}: {error}") from error
    if truth is Truth.VALUES and "class_index" in header:
        raise InputError(f"labels {source} are classes (class_index); here a column is needed for each value: "
                         "name such a file with --labels")  # fmt: skip
    columns = ["class_index"] if truth is Truth.CLASS else [name for name in header if name != "file"]
    if not rows or not columns or not {"file", *columns} <= set(header) or len(set(header)) != len(header):
        wanted = "class_index" if truth is Truth.CLASS else "one for each value"
        raise InputError(f"labels {source} must have the columns file and {wanted}, and a row for each image")
    read = _class_index if truth is Truth.CLASS else _value
    paths, found = [], []
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(f"labels {source}, row {line}: {len(row)} values for {len(header)} columns")
        paths.append(folder / row[header.index("file")].strip())
        found.append([read(row[header.index(c)].strip(), f"labels {source}, row {line}: {c}") for c in columns])
    missing = [p for p in paths if not _is_file(p)]
    if missing:
        first = missing[0].name
        raise InputError(f"labels {source} name {len(missing)} images that are not there, first {first[:40]}")
    if truth is Truth.CLASS:
        return Labelled(paths, np.array(found, np.int64)[:, 0])
    return Labelled(paths, np.array(found, np.float64), tuple(columns))


@dataclass(frozen=True)
class LabelledFiles:
    """The images that an evaluation is about, a digest of what its labels say, and their columns where they are values.
    """

    paths: list[Path]
    labels: str
    columns: tuple[str, ...] = ()


def test_files(folder: Path, labels: Path | None) -> LabelledFiles:
    """What an evaluation of this folder is about.

    Raises:
        InputError: see :func:`read_labels`.
    """
    source = labels or folder / "labels.csv"
    if source.is_dir():
        maps = sorted(source.rglob("*.png"))
        names = [m.relative_to(source).as_posix() for m in maps]
        lines = (f"{name} {h}" for name, h in zip(names, hash_files(maps), strict=True))
        return LabelledFiles(images_in(folder), "\n".join(lines))
    if labels is None and not source.is_file():
        return LabelledFiles(images_in(folder), "")
    text = files.read_text(source, "labels")
    truth = Truth.CLASS if "class_index" in text.partition("\n")[0] else Truth.VALUES
    found = read_labels(folder, labels, truth)
    return LabelledFiles(found.paths, hashlib.sha256(text.encode()).hexdigest(), found.names)


def read_maps(folder: Path, maps: Path, classes: tuple[int, ...] | None) -> Labelled:
    """The pictures of a folder, each with the label map of its name (but for the suffix) in another.

    A picture in a folder inside has its map in a folder of that name, or where the names of all pictures differ, with
    the others.

    Raises:
        InputError: no such folder, a picture without a map, or two with the same.
    """
    if not maps.is_dir():
        raise InputError(f"--labels {maps}: of a segmentation it is a folder of maps, one .png for each image")
    paths = images_in(folder)
    beside = [maps / p.relative_to(folder).with_suffix(".png") for p in paths]
    found = [own if own.is_file() else maps / f"{p.stem}.png" for p, own in zip(paths, beside, strict=True)]
    missing = [p.name for p, of in zip(paths, found, strict=True) if not of.is_file()]
    if missing:
        raise InputError(f"{maps} has no map for {len(missing)} images, first {missing[0][:40]}: {maps}/NAME.png")
    first: dict[Path, Path] = {}
    for path, of in zip(paths, found, strict=True):
        if (other := first.setdefault(of, path)) is not path:
            both = f"{other.relative_to(folder)} and {path.relative_to(folder)}"
            raise InputError(f"{of} would be the map of {both}: put maps into folders as the images are")
    return Labelled(paths, LabelMaps(found, classes))


def _is_file(path: Path) -> bool:
    """No for a name that no file can have, too."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _class_index(text: str, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise InputError(f"{where} is {text[:40]!r}, must be a whole number, 0 or more")
    return int(text)


def _value(text: str, where: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{where} is {text[:40]!r}, must be a number")
    return found


def preprocess_for(folder: Path, default: Preprocess, mode: str | None) -> Preprocess:
    """How the images of a folder are to be resized: an option, else metadata beside them, else the model's way."""
    how = folder_preprocess(folder, default)
    return how if mode is None else replace(how, mode=mode)


def load_pixels(paths: Sequence[Path], shape: Shape, how: Preprocess, log: Log = silent) -> np.ndarray:
    """[N, H, W, C]: uint8 pixels; float32 input values where some files hold floats.

    Args:
        log: is told where floats look like pixels.

    Raises:
        InputError: some of them cannot be read; all of these are named.
    """
    found = _each(paths, lambda path: load_input(path, shape, how))
    floats = [x for x in found if x.dtype != np.uint8]
    if not floats:
        return np.stack(found)
    if look_like_pixels(floats):
        log(
            "the arrays hold floats that are whole numbers up to 255, and are taken as they are: pixels would be uint8 "
            "(divided by 255, then mean and std), floats are what the network itself takes"
        )
    return np.stack([normalize(x, how) for x in found])


def look_like_pixels(arrays: Sequence[np.ndarray]) -> bool:
    """Whether floats all are whole numbers up to 255: pixels, perhaps, which nobody normalised."""
    low, high = min(x.min() for x in arrays), max(x.max() for x in arrays)
    return bool(low >= 0 and 2 < high <= 255 and all((x == np.rint(x)).all() for x in arrays))


def are_arrays(paths: Sequence[Path]) -> bool:
    """Whether there are files of arrays among these."""
    return any(is_array_file(path) for path in paths)


def mirrored_crops(paths: Sequence[Path], shape: Shape, how: Preprocess, seed: int) -> np.ndarray:
    """A part of each image as its mirror shows it, [N, H, W, C] uint8: where and how large is drawn by the seed.

    Raises:
        InputError: some of them cannot be read; all of these are named.
    """
    random = np.random.default_rng(seed)

    def view(path: Path) -> np.ndarray:
        image = load_image(path)
        share, x, y = (random.uniform(*ends) for ends in (CROPPED, (0, 1), (0, 1)))
        width, height = (max(1, round(share * side)) for side in image.size)
        left, top = round(x * (image.width - width)), round(y * (image.height - height))
        part = image.crop((left, top, left + width, top + height)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return to_pixels(part, shape[0], shape[1], how)

    return np.stack(_each(paths, view))


def _each(paths: Sequence[Path], do: Callable[[Path], T], wrong: str = "images cannot be used:") -> list[T]:
    """What ``do`` makes of each file; ``wrong``: what is said of several of which it makes nothing."""
    found, bad = [], []
    for path in paths:
        try:
            found.append(do(path))
        except InputError as error:
            bad.append(str(error))
    if bad:
        first = f"{len(bad)} of {len(paths)} {wrong} " if len(bad) > 1 else ""
        raise InputError(f"{first}{'; '.join(bad)}")
    return found


def check_readable(paths: Sequence[Path]) -> None:
    """Read every image before the work begins.

    Raises:
        InputError: some of them cannot be read, and all of these are named; or arrays have several shapes.
    """

    def shape(path: Path) -> tuple[int, ...]:
        if not is_array_file(path):
            load_image(path)
            return ()
        return read_array(path).shape

    shapes = dict(zip(_each(paths, shape), paths, strict=True))
    shapes.pop((), None)
    if len(shapes) > 1:
        (a, b), (x, y) = [*shapes][:2], [*shapes.values()][:2]
        raise InputError(f"arrays have one shape, that of the input: {x} holds {list(a)}, {y} {list(b)}")


def check_labelled(labelled: Labelled) -> None:
    """Read every image, and every map of what is right about it, before the work begins.

    Raises:
        InputError: see :func:`check_readable`; or pixels of some maps are no classes, and all of these are named.
    """
    check_readable(labelled.paths)
    if isinstance(labelled.truth, LabelMaps):
        _each(labelled.truth.paths, read_label_map, "label maps cannot be used:")


def write_arrays(arrays: Iterable[Any], folder: Path, most: int) -> None:
    """Write the first ``most`` of ``arrays`` into a new folder, a ``.npy`` file each.

    Args:
        arrays: each [H, W, C] (or [H, W], one channel) of the input's size: pixels as uint8, or what the network itself
            takes as floats; anything that numpy makes an array of. An array [N, H, W, C] is such an iterable.
        most: of an iterable that may never end.

    Raises:
        InputError: there are none, or one is no such array; with its number.
    """
    folder.mkdir(parents=True)
    count = 0
    for count, given in enumerate(islice(arrays, most), 1):
        if isinstance(given, list | tuple | dict):
            raise InputError(f"item {count} of the images is a {type(given).__name__}; give arrays [H, W, C] alone")
        try:
            found = checked(np.asarray(given))
        except (InputError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"item {count} of the images: {str(error).splitlines()[0]}") from error
        np.save(folder / f"{count:06d}.npy", found)
    if not count:
        raise InputError("the images are an iterable of none")


def calibration_images(folder: Path, count: int, seed: int) -> dict[str, Path]:
    """The images of a folder that are drawn to calibrate on, by their hashes."""
    return draw(by_content(images_in(folder)), count, seed)


def verification_images(folder: Path, used: Collection[str], count: int, seed: int) -> dict[str, Path]:
    """Those that are drawn to verify on: not among the hashes ``used``, where there are others."""
    return _fresh(by_content(images_in(folder)), used, count, seed)


def _fresh(contents: Mapping[str, Path], used: Collection[str], count: int, seed: int) -> dict[str, Path]:
    return draw({h: p for h, p in contents.items() if h not in used} or contents, count, seed + 1)


def check_images(folder: Path, count: int, seed: int, *, verify: bool) -> None:
    """Read every image that a build will use, before it begins.

    Args:
        verify: whether those are meant that export and verification take, besides those of the calibration.

    Raises:
        InputError: there are none, or see :func:`check_readable`.
    """
    contents = by_content(images_in(folder))
    wanted = draw(contents, count, seed)
    if verify:
        wanted |= _fresh(contents, wanted, VERIFY_IMAGES, seed) | draw(contents, EXPORT_IMAGES, seed)
    check_readable(sorted(wanted.values()))
