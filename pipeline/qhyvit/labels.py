"""What labels say of the images of a folder, in the order of a model's classes or values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhyvit import data
from qhyvit.bundle import label_names
from qhyvit.errors import InputError
from qhyvit.tasks.shared.score import Truth
from qhyvit.tasks.shared.task import Task
from qhyvit_device.preprocess import images_in

BY_BUILD = "a build that names them with --labels goes by the names"


def labelled_images(
    folder: Path, labels: Path | None, task: Task, outputs: int, class_map: tuple[int, ...] | None = None,
    names: Sequence[str] = (),
) -> data.Labelled:  # fmt: skip
    """Images of a folder, with what is right about them where the task knows and labels are there.

    Args:
        outputs: classes of the model, or values that it gives.
        class_map: see :class:`qhyvit.tasks.shared.score.LabelMaps`.
        names: of the values; columns of labels are put into this order. Without names they are as they lie.

    Raises:
        InputError: labels are missing that the task needs, or cannot be right; or see
            :func:`qhyvit.data.read_labels` and ``read_maps``.
    """
    if class_map is not None and (task.truth is not Truth.MAP or len(class_map) != max(outputs, 2)):
        if task.truth is not Truth.MAP:
            raise InputError(f"--class-map is for bundles of segmentations; the task of this one is {task.name}")
        known = max(outputs, 2)
        raise InputError(f"--class-map names {len(class_map)} classes; the model has {known}, name one for each")
    there = labels is not None or (task.truth is not Truth.MAP and (folder / "labels.csv").is_file())
    if task.truth is Truth.NONE or not (there or task.truth_is_needed):
        if labels is not None:
            raise InputError(f"--labels: of a {task.name} bundle nothing is known that labels could say")
        return data.Labelled(images_in(folder), None)
    if task.truth is Truth.MAP:
        assert labels is not None
        return data.read_maps(folder, labels, class_map)
    found = data.read_labels(folder, labels, task.truth)
    if task.truth is Truth.VALUES and found.truth.shape[1] != outputs:
        raise InputError(f"labels have {found.truth.shape[1]} values an image, the model gives {outputs}")
    if wrong := task.wrong_truth(found.truth, outputs):
        raise InputError(wrong)
    return found if task.truth is not Truth.VALUES else _in_order(found, names)


def _in_order(labelled: data.Labelled, names: Sequence[str]) -> data.Labelled:
    """The same with the columns of values as ``names`` go, where those are names that somebody gave.

    Raises:
        InputError: see :func:`check_columns`.
    """
    if not check_columns(labelled.names, names):
        return labelled
    places = [labelled.names.index(name) for name in names]
    return data.Labelled(labelled.paths, labelled.truth[:, places], tuple(names))


def check_columns(columns: Sequence[str], names: Sequence[str]) -> bool:
    """Whether columns of values can go by ``names``; see :func:`tell_apart`.

    Raises:
        InputError: they can, and the columns have other names.
    """
    if not tell_apart(names):
        return False
    if set(names) != set(columns):
        has, wanted = (", ".join(some)[:200] for some in (columns, names))
        raise InputError(f"labels have the columns {has}; the model's values are {wanted}: name the columns so")
    return True


def tell_apart(names: Sequence[str]) -> bool:
    """Whether somebody gave these names, and no two are the same."""
    return list(names) != label_names(None, len(names)) and len(set(names)) == len(names)


def order_hint(columns: Sequence[str], names: Sequence[str], remedy: str = BY_BUILD) -> str | None:
    """A line for columns of values that count in their order, as no names say which is which; None for others.

    Args:
        remedy: what to do that they go by names; the default is for bundles.
    """
    if len(columns) < 2 or check_columns(columns, names):
        return None
    return f"the columns {', '.join(columns)[:200]} are taken to be the model's values in this order: {remedy}"
