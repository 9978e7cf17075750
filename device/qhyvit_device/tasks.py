"""What a bundle's outputs mean: one entry a task, with the command that reads them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BundleTask:
    """A task by its name in the manifest.

    Args:
        command: of ``qhyvit-device`` that reads it; ``run`` reads any.
        labels: whether the bundle has one for each class; None: it may.
    """

    name: str
    command: str
    labels: bool | None


# all but ``raw`` are about the first output; ``regress`` names what the others hold as well
TASKS = {
    task.name: task
    for task in (
        BundleTask("classify", "classify", True),  # logits, of which one class is right
        BundleTask("multilabel", "classify", True),  # logits, each of a label of its own
        BundleTask("regress", "classify", None),  # values, as they are
        BundleTask("embed", "embed", False),  # a vector; near ones are alike
        BundleTask("segment", "segment", True),  # logits of each place, [1, height, width, classes]
        BundleTask("raw", "run", False),  # whatever they are
    )
}
