"""Commands of the host stage, in this process."""

import contextlib
import io
import subprocess

import pytest

from qhyvit import cli


def called(*words):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, words)])
    return ended.value.code


def said(capsys, *words):
    """Exit code, stdout and the lines of stderr."""
    code, (out, err) = called(*words), capsys.readouterr()
    return code, out, err.splitlines()


def ran(*words):
    """What a process of its own would give, in a fraction of the time: most of that is spent on imports."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = called(*words)
    return subprocess.CompletedProcess(words, code or 0, out.getvalue(), err.getvalue())
