"""From a family's module to a float ``.tflite`` through litert-torch, with the facts that belong to it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from qhyvit.errors import ExportError, QhyvitError
from qhyvit.models.shared.masks import finite
from qhyvit.models.shared.outputs import OURS, GivesOutputs, check_values, gives_probabilities, tensors_of
from qhyvit.models.shared.reason import reason
from qhyvit.models.shared.source import Source
from qhyvit.models.shared.submodules import as_it_is, equivalents_in, with_equivalents
from qhyvit.models.shared.transposed import with_expressible
from qhyvit.passes import shortened
from qhyvit.progress import Log, silent
from qhyvit.tasks import task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.task import Task
from qhyvit.tflite.constants import without_constant_nodes
from qhyvit.tflite.final_activation import last_op, without_final
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize

# Of the largest logit. MobileViTv2's norms sum up to M = 262,144 squares one after the other in float32: a relative
# error of about sqrt(M) * 2^-24 = 3e-5 each, 21 norms in a row. A wrong equivalent is off by 1e-2 and more.
FLOAT_TOLERANCE = 5e-4


@dataclass(frozen=True)
class Exported:
    """The file's bytes and its facts: model, classes, input shape, preprocessing, float error, versions."""

    tflite: bytes
    facts: dict[str, Any]


@contextlib.contextmanager
def quiet() -> Any:
    """Keep the converter's progress lines, written by Python and by C++, off the terminal."""
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        saved = os.dup(2), os.dup(1)
        try:
            os.dup2(sink.fileno(), 2)
            os.dup2(sink.fileno(), 1)
            yield
        finally:
            os.dup2(saved[0], 2)
            os.dup2(saved[1], 1)
            for fd in saved:
                os.close(fd)


def convert(module: nn.Module, shape: tuple[int, ...]) -> bytes:
    """Float ``.tflite`` of a module that takes [1, H, W, C].

    Raises:
        ExportError: the converter refused the module.
    """
    sample = (torch.rand(1, *shape),)
    with tempfile.TemporaryDirectory() as folder, quiet():
        import litert_torch

        try:
            edge = litert_torch.convert(module, sample)
        except Exception as error:  # the converter raises whatever its stages raise
            raise ExportError(f"litert-torch could not convert the model: {reason(error)}") from error
        path = Path(folder) / "float.tflite"
        edge.export(str(path))
        return path.read_bytes()


def scope_chains(module: nn.Module) -> dict[str, str]:
    """litert-torch's scope chain of every module, ``pkg.Root/pkg.Class_child/...`` -> module path ``child...``."""

    def qualified(m: nn.Module) -> str:
        return f"{type(m).__module__}.{type(m).__qualname__}"

    chains = {}

    def walk(m: nn.Module, chain: str, path: str) -> None:
        for name, child in m.named_children():
            below = f"{path}.{name}" if path else name
            if isinstance(m, OURS):  # are ours: no part of a path
                below = path
            if isinstance(child, nn.ModuleList):  # is never called itself: no part of a chain
                walk(child, chain, below)
                continue
            chains[f"{chain}/{qualified(child)}_{name}"] = below
            walk(child, f"{chain}/{qualified(child)}_{name}", below)

    walk(module, qualified(module), "")
    return chains


def module_of(tensor_name: str, chains: Mapping[str, str]) -> str:
    """Module path that a tensor of the file came from, "" where its name does not tell.

    A name lists scope chains, separated by ``;``; long ones are cut at the front, so the chain must end with what
    is left, and only one chain may. A module whose forward is not called (``net.backbone.forward_features(x)``) is
    missing from the chains of those within.
    """
    for part in tensor_name.split(";"):
        if part in chains:
            return chains[part]
        ending = {path for chain, path in chains.items() if "/" in part and chain.endswith(part)}
        ending = ending or {path for chain, path in chains.items() if "/" in part and _leaves_out(part, chain)}
        if len(ending) == 1:
            return ending.pop()
    return ""


def _leaves_out(part: str, chain: str) -> bool:
    """Whether ``part`` is ``chain`` without some modules before the last."""
    whole = iter(chain.split("/"))
    links = part.split("/")
    return all(link in whole for link in links) and next(whole, None) is None


def _modules(data: bytes, module: nn.Module) -> dict[str, str]:
    from qhyvit.tflite import flatbuffer

    chains = scope_chains(module)
    subgraph = flatbuffer.load_model(data).subgraphs[0]
    names = [flatbuffer.text(subgraph.tensors[t].name) for o in subgraph.operators for t in o.outputs]
    found = {name: module_of(name, chains) for name in names}
    return {name: path for name, path in found.items() if path}


APPLIED: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "SOFTMAX": lambda x: x.softmax(-1), "LOG_SOFTMAX": lambda x: x.log_softmax(-1), "LOGISTIC": lambda x: x.sigmoid(),
}  # fmt: skip


def float_error(
    data: bytes, reference: nn.Module, shape: tuple[int, ...], seed: int = 0, images: np.ndarray | None = None, *,
    cut: str = "",
) -> float:  # fmt: skip
    """Largest difference of the file's outputs from the reference module's, relative to the largest of its image.

    Args:
        reference: in eval mode, takes [1, C, H, W]; gives what the file does, in its order.
        images: real ones, normalised, [N, H, W, C], beside two of noise drawn by ``seed``; None: noise alone.
        cut: the op that the module ends in and the file has not (:data:`APPLIED`): it is computed here; "" for none.
    """
    from qhyvit_device.runner import TfliteFile

    noise = np.random.default_rng(seed).random((2, *shape), dtype=np.float32)
    images = noise if images is None else np.concatenate([noise, images])
    file, errors = TfliteFile(data), []
    for x in images.astype(np.float32):
        found = [torch.from_numpy(y) for y in file.invoke(x)]
        with torch.no_grad():
            expected = [*tensors_of(reference(torch.from_numpy(x[None]).permute(0, 3, 1, 2))).values()]
        for y, target in zip(found, expected, strict=True):
            y = APPLIED[cut](y) if cut else y
            errors.append(float((y - target).abs().max() / target.abs().max()))
    return float(np.max(errors))  # NaN where one is


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
    shape, reference = source.shape, source.reference
    if source.is_formed:
        rewritten, reference = (
            GivesOutputs(m, channels_last=source.task.channels_last).eval() for m in (rewritten, reference)
        )
    rewritten = with_expressible(rewritten)
    converted = without_constant_nodes(convert(rewritten, shape))
    modules, last = _modules(converted, rewritten), last_op(converted)
    found = _task_of(source, last)
    data = serialize(shortened(finite(read(without_final(converted, found.cut), modules))))
    cut = last if last in found.cut else ""
    error = float_error(data, reference, shape, images=images, cut=cut)
    if not error < FLOAT_TOLERANCE:
        raise ExportError(f"the exported file differs from {source.name} by {error:.2e} of its largest output")
    facts = {
        "model": source.name, "family": source.family, "task": found.name, "outputs": _layout(data, source).to_facts(),
        "classes": source.classes, "input_shape": list(shape),
        "bridge_blocks": source.bridge_blocks, "preprocess": dict(source.preprocess), "float_error": error,
        "float_images": 0 if images is None else len(images),
        "weights": source.weights, "cut": cut, "equivalents": equivalents_in(rewritten),
        "versions": {name: metadata.version(name) for name in ("torch", "timm", "litert-torch")},
    }  # fmt: skip
    return Exported(data, facts)


def _layout(data: bytes, source: Source) -> Layout:
    """Shapes as the file has them, names as the module does."""
    graph = read(data)
    return Layout(tuple(source.outputs), tuple(graph.tensors[t].shape[1:] for t in graph.outputs))


def _task_of(source: Source, last: str) -> Task:
    """The task, now that the end of the network is known.

    Raises:
        ExportError: it is classification, and the model gives something else than logits, or a softmax of them.
    """
    found = source.task
    if last == "LOGISTIC" and found.name == "classify" and not source.task_is_asked:
        return task("multilabel")
    if found.name != "classify":
        return found
    if last == "LOGISTIC":
        raise ExportError(
            f"{source.name} ends in a sigmoid, one class apart from another: give --task multilabel, or logits"
        )
    if last not in found.cut and gives_probabilities(source.reference, source.shape):
        raise ExportError(
            f"{source.name} gives probabilities, but ends in {last}; return the logits before its softmax"
        )
    return found
