"""What a network's outputs mean, one file each with one constant ``TASK``."""

from __future__ import annotations

import sys
from functools import cache

from qhyvit.errors import UsageError
from qhyvit.registry import discover, pick
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.task import Task


@cache
def all_tasks() -> dict[str, Task]:
    """Every task by name."""
    return discover(sys.modules[__name__], "TASK", Task)


def task(name: str) -> Task:
    """One task by name.

    Raises:
        UsageError: unknown name.
    """
    return pick(all_tasks(), name, "task")


def fitting_task(name: str | None, layout: Layout) -> Task:
    """The task of this name, where outputs are its; of None the one that outputs of such shapes mostly mean.

    Raises:
        UsageError: unknown name, or the outputs are another task's.
    """
    if name is None:
        return task(_usual(layout))
    found = task(name)
    if reason := found.unfit(layout):
        others = ", ".join(t.name for t in all_tasks().values() if not t.unfit(layout))
        raise UsageError(f"--task {name} {reason}; the model gives {layout.described()}: it may be {others}")
    return found


def _usual(layout: Layout) -> str:
    if len(layout.shapes) > 1:
        return "raw"
    shape = layout.shapes[0]
    if len(shape) == 1:
        return "classify" if shape[0] > 1 else "multilabel"
    return "segment" if len(shape) == 3 else "raw"
