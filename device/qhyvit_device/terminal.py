"""What a program writes: no control characters of others, one line for any exception, streams that may be gone."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from qhyvit_device.errors import DeviceError, QhyvitError, said


def shown(text: object) -> str:
    """Text for a terminal: control characters, line ends and bytes that are no text come as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def prepare() -> None:
    """Make the standard streams safe to use.

    A closed one is opened on nothing: else the next file takes its number, and gets what libraries print.
    What stdout's encoding lacks is written as an escape.

    Raises:
        DeviceError: stdout is closed, so that there is no place for results.
    """
    closed = sys.stdout is None
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if closed:
        raise DeviceError("standard output is closed; there is no place for results")
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def complain(program: str, line: str) -> None:
    """One line of error on stderr, where there is one."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"{program}: error: {shown(line)}", file=sys.stderr, flush=True)


def flush() -> None:
    """Write out what was printed.

    Raises:
        BrokenPipeError: whoever reads has enough.
        DeviceError: it cannot be written.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        forget(sys.stdout)
        raise
    except OSError as error:
        forget(sys.stdout)
        raise DeviceError(f"cannot write to standard output: {error.strerror}") from error


def forget(stream: TextIO | Any) -> None:
    """Let what a stream could not write go nowhere: the interpreter would try once more at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if stream.fileno() in (1, 2):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)


def settle() -> None:
    """Write out what stands in stderr's buffer, or let it go: what fails at the interpreter's end is exit code 120."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        forget(sys.stderr)


def guarded(program: str, work: Callable[[], int], *, debug: bool) -> int:
    """Run ``work``; exit code 130 where it was interrupted, else that of the exception, which becomes one line."""
    try:
        prepare()
        code = work()
        flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        forget(sys.stdout)
        return 0
    except Exception as error:  # whatever it is, one line
        if debug:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                traceback.print_exc()
        complain(program, said(error))
        with contextlib.suppress(OSError, DeviceError):
            flush()
        return error.exit_code if isinstance(error, QhyvitError) else 2
    finally:
        settle()
