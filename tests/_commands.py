"""Commands of the host stage, in this process."""

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
