"""``qhyvit``: from weights to a verified integer bundle. Results to stdout, talk to stderr."""

from __future__ import annotations

import re
import sys
import traceback

import typer
from typer.exceptions import TyperException

from qhyvit import console
from qhyvit.cli import boards, build, cards, doctor, look  # noqa: F401 - their commands join the application
from qhyvit.cli.app import app as app
from qhyvit.errors import QhyvitError
from qhyvit_device import terminal
from qhyvit_device.errors import said

DEBUG, QUIET = "--debug", "--quiet"  # anywhere in the line
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # colours of other programs' texts


def _failure(error: BaseException) -> tuple[int, str]:
    """Exit code and line; no line where a help text was the answer."""
    if isinstance(error, TyperException):
        message = getattr(error, "format_message", None)
        return 2, message() if message is not None else str(error)
    if isinstance(error, SystemExit):  # from code of the user's, which qhyvit runs
        return 2, f"the model's code ended the program (exit code {error.code}); a model returns, it does not exit"
    return error.exit_code if isinstance(error, QhyvitError) else 2, said(error)


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 a check failed, 2 could not do it, 130 interrupted.

    Whatever goes wrong is one line; ``--debug`` shows where.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        terminal.prepare()
        console.silence(wanted=QUIET in given)
        code = app([word for word in given if word not in (DEBUG, QUIET)], standalone_mode=False)
        terminal.flush()
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except (Exception, SystemExit) as error:
        if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
            terminal.forget(sys.stdout)  # whoever reads has enough: typer ends the program
            sys.exit(0)
        if DEBUG in given:
            traceback.print_exc()
        exit_code, line = _failure(error)
        if line:
            terminal.complain("qhyvit", " ".join(ESCAPES.sub("", line).split()))
        terminal.forget(sys.stdout)
        sys.exit(exit_code)
    finally:
        console.silence(wanted=False)
        terminal.settle()
    sys.exit(code if isinstance(code, int) else 0)
