"""Talk on stderr: lines, bars on a terminal only, tables; results go to stdout elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from qhyvit_device.terminal import shown

err = Console(stderr=True, highlight=False)
out = Console(highlight=False, soft_wrap=True)
EDGES = 3  # characters of a table's column besides its own: two spaces and a line
_silenced = False


def silence(*, wanted: bool) -> None:
    """Leave out bars and log lines from now on; errors, warnings and results remain."""
    global _silenced
    _silenced = wanted


class Talk:
    """Progress bars by label, and log lines above them."""

    def __init__(self, bars: Progress | None) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def progress(self, what: str, share: float) -> None:
        """Show how far ``what`` is; a new label finishes the one before."""
        if self._bars is None:
            return
        if what not in self._tasks:
            for task in self._tasks.values():
                self._bars.update(task, total=1.0, completed=1.0, visible=False)
            self._tasks[what] = self._bars.add_task(what, total=None)
        # what never tells more than its start has a bar that moves, and no time that is left
        self._bars.update(self._tasks[what], total=1.0 if share > 0 else None, completed=share, visible=True)

    def log(self, line: str, share: float = 0.0) -> None:
        """One line; names of files and layers may hold control characters."""
        if _silenced:
            return
        (self._bars.console if self._bars is not None else err).print(Text(shown(line)), soft_wrap=True)


@contextmanager
def talk() -> Iterator[Talk]:
    """Bars while the block runs, where stderr is a terminal. What is printed meanwhile goes to stderr.

    Models are the user's code, which may print; stdout holds results alone.
    """
    with _stdout_to_stderr():
        if _silenced or not sys.stderr.isatty():
            yield Talk(None)
            return
        share = TextColumn("{task.percentage:3.0f} %")
        passed, left = TimeElapsedColumn(), TimeRemainingColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), share, passed, TextColumn("left"), left)
        with Progress(*columns, console=err, transient=True) as bars:
            yield Talk(bars)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """For Python, and for programs and libraries that write to the descriptor."""
    sys.stdout.flush()
    with contextlib.ExitStack() as undo:
        undo.enter_context(contextlib.redirect_stdout(sys.stderr))
        with contextlib.suppress(OSError):  # a closed descriptor needs no care
            kept = os.dup(1)
            undo.callback(os.close, kept)
            undo.callback(os.dup2, kept, 1)
            os.dup2(2, 1)
        yield


def say(line: object) -> None:
    """One line on stdout, for people: names and what others wrote may hold control characters and markup."""
    out.print(Text(shown(line)))


def warn(line: str) -> None:
    """One line on stderr, see :func:`say`."""
    err.print(Text(shown(line)), soft_wrap=True)


def table(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A table on stdout, with whole words where a terminal of this width can hold them."""
    grid = Table(title=Text(shown(title), "table.title"), title_justify="left")
    texts = [[shown(value) for value in row] for row in (columns, *rows)]
    for i, width in enumerate(_widths(texts, out.width)):
        grid.add_column(Text(texts[0][i]), justify="left" if i == 0 else "right", width=width)
    for row in texts[1:]:
        grid.add_row(*map(Text, row))
    out.print(grid)


def _widths(rows: list[list[str]], room: int) -> list[int] | list[None]:
    """Characters of each column, the widest ones narrowed until all fit into ``room``; None: cut words are needed."""
    columns = [*zip(*rows, strict=True)]
    widths = [max(map(cell_len, texts)) for texts in columns]
    words = [max((cell_len(word) for text in texts for word in text.split()), default=0) for texts in columns]
    for _ in range(sum(widths) + EDGES * len(columns) + 1 - room):
        wide = [i for i, width in enumerate(widths) if width > words[i]]
        if not wide:
            return [None] * len(columns)
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths
