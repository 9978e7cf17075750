"""What a command is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

PROGRAM = "qhyvit-device"


@dataclass(frozen=True)
class Command:
    """One command by its name.

    Args:
        help: one line.
        options: adds its arguments to its parser.
        run: does it, and gives the exit code.
    """

    name: str
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
