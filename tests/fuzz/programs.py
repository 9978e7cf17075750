"""Both programs called in this process, and the rules that hold whatever they are given."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from qhyvit import cli
from qhyvit_device import cli as device_cli
from tests.fuzz.kind import Case, must

BUILD = ("build", "net.py:make", "--images", "images", "--out", "out", "--method", "minmax", "--count", "2")
REACHED = "the exporter was reached"
FAULT = "this is a fault of qhyvit"
OUTS = ("out", "out.work", "b.html")  # what a command may write


def words_of(case: Case) -> list[str]:
    """Words of a command line, as a system gives them."""
    return [os.fsdecode(word) for word in case]


def case_of(words: Sequence[str]) -> Case:
    """The inverse of :func:`words_of`; what no argument can hold is left out."""
    return tuple(word.encode("utf-8", "surrogateescape") for word in words if _is_argument(word))


def _is_argument(word: str) -> bool:
    try:
        return "\0" not in word and bool(os.fsencode(word) or True)
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return False


def device(words: Sequence[str]) -> int:
    """The exit code of ``qhyvit-device``.

    Raises:
        FindingError: a rule does not hold.
    """
    return _ran("qhyvit-device", lambda: device_cli.main(list(words)), words)


def host(words: Sequence[str]) -> tuple[int, str]:
    """The exit code of ``qhyvit``, and its last line on stderr.

    Raises:
        FindingError: see :func:`device`.
    """

    def call() -> int:
        try:
            cli.main(list(words))
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 99
        return 0

    said = io.StringIO()
    code = _ran("qhyvit", call, words, said)
    lines = said.getvalue().splitlines()
    return code, lines[-1] if lines else ""


def _ran(program: str, call: Callable[[], int], words: Sequence[str], said: io.StringIO | None = None) -> int:
    before = set(os.listdir())
    out, err = io.StringIO(), said or io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = call()
    lines = err.getvalue().splitlines()
    told = f"| {program} {list(words)}: exit code {code}, {lines[-3:]}"
    must(code in (0, 1, 2), f"another exit code {told}")
    if "--debug" not in words:
        must("Traceback" not in err.getvalue() + ("" if out.closed else out.getvalue()), f"a traceback {told}")
    must(FAULT not in err.getvalue(), f"a fault of qhyvit, {''.join(lines[-1:]).rpartition('error: ')[2]} {told}")
    if code == 2:
        errors = sum(line.startswith(f"{program}: error: ") for line in lines)
        must(lines and lines[-1].startswith(f"{program}: error: "), f"no line of error {told}")
        must(errors == 1 or program != "qhyvit", f"several lines of error {told}")
    for out_name in OUTS:
        shutil.rmtree(out_name, ignore_errors=True)
        Path(out_name).unlink(missing_ok=True)
    left = set(os.listdir()) - before
    for name in left:
        shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)
    asked = {name for word in words for name in (word, word.partition("=")[2])} if code != 2 else set()
    must(not left - asked, f"files are left {told}; {sorted(left)}")
    return code
