"""What a network is for, by the op that it ends in."""

from __future__ import annotations

from qhyvit.errors import ExportError
from qhyvit.models.shared.described import Source
from qhyvit.models.shared.outputs import gives_probabilities
from qhyvit.tasks import task
from qhyvit.tasks.shared.task import Task


def task_behind(source: Source, last: str) -> Task:
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
