"""From a family's module to a float ``.tflite`` through litert-torch, with the facts that belong to it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from torch import nn

from qhyvit.errors import ExportError, QhyvitError
from qhyvit.models.shared.conversion import convert, shortened_graph
from qhyvit.models.shared.described import Source
from qhyvit.models.shared.final_task import task_behind
from qhyvit.models.shared.float_error import FLOAT_TOLERANCE, float_error
from qhyvit.models.shared.modules import Reversed
from qhyvit.models.shared.outputs import GivesOutputs, check_values
from qhyvit.models.shared.scopes import modules_of
from qhyvit.models.shared.submodules import as_it_is, equivalents_in, with_equivalents
from qhyvit.models.shared.transposed import with_expressible
from qhyvit.progress import Log, silent
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tflite.constants import without_constant_nodes
from qhyvit.tflite.final_activation import last_op, without_final
from qhyvit.tflite.serialize import serialize


@dataclass(frozen=True)
class Exported:
    """The file's bytes and its facts: model, classes, input shape, preprocessing, float error, versions."""

    tflite: bytes
    facts: dict[str, Any]


def export(source: Source, log: Log = silent, images: np.ndarray | None = None) -> Exported:
    """Rewrite, convert and check one model.

    Args:
        log: is told what was left out on the way, and why.
        images: real ones to compare the file with the module on, see :func:`float_error`.

    Raises:
        ExportError: not convertible, its values are not finite or not its image's alone, or the file's logits are not
            those of the module.
        GraphError: ops that we do not support.
    """
    check_values(source.name, source.reference, source.shape)
    if source.tflite is not None:
        return _proven(source, source.tflite(isinstance(source.reference, Reversed), source.turns_maps), None, images)
    left: list[str] = []
    rewritten = source.rewrite(source.reference, source.shape, left.append)
    for line in left:
        log(f"export: {line}")
    try:
        return _converted(source, rewritten, images)
    except QhyvitError as error:
        if source.rewrite is with_equivalents and equivalents_in(rewritten):
            log(f"export: tried once more without the forms of known blocks: {error}")
            with contextlib.suppress(QhyvitError):
                return _converted(source, as_it_is(source.reference, source.shape), images)
        if left:
            raise type(error)(f"{error} ({left[0]})") from error
        raise


def _converted(source: Source, rewritten: nn.Module, images: np.ndarray | None) -> Exported:
    """The file of a module that takes [1, H, W, C]."""
    if source.is_formed:
        rewritten = GivesOutputs(rewritten, channels_last=source.turns_maps).eval()
    rewritten = with_expressible(rewritten)
    return _proven(source, convert(rewritten, source.shape), rewritten, images)


def _proven(source: Source, converted: bytes, module: nn.Module | None, images: np.ndarray | None) -> Exported:
    """The file that ships of a converted one, compared with the source; ``module``: that which was converted."""
    reference = source.reference
    if source.is_formed:
        reference = GivesOutputs(reference, channels_last=source.turns_maps).eval()
    converted = without_constant_nodes(converted)
    last = last_op(converted)
    task = task_behind(source, last)
    graph = shortened_graph(without_final(converted, task.cut), {} if module is None else modules_of(converted, module))
    data, cut = serialize(graph), last if last in task.cut else ""
    layout = Layout(tuple(source.outputs), tuple(graph.tensors[t].shape[1:] for t in graph.outputs))
    error = float_error(data, reference, source.shape, images=images, cut=cut)
    if not error < FLOAT_TOLERANCE:
        raise ExportError(f"the exported file differs from {source.name} by {error:.2e} of its largest output")
    facts = {
        "model": source.name, "family": source.family, "task": task.name, "outputs": layout.to_facts(),
        "classes": source.classes, "input_shape": list(source.shape),
        "bridge_blocks": source.bridge_blocks, "preprocess": dict(source.preprocess), "float_error": error,
        "float_limit": FLOAT_TOLERANCE, "float_images": 0 if images is None else len(images),
        "weights": source.weights, "cut": cut, "equivalents": {} if module is None else equivalents_in(module),
        "versions": {name: metadata.version(name) for name in ("torch", "timm", "litert-torch", *source.tools)},
    }  # fmt: skip
    return Exported(data, facts)
