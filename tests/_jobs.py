"""What the jobs of the tests do; they run in processes of their own."""

import os
import time
from pathlib import Path

from qhyvit.errors import InputError


def double(x: int) -> dict[str, int]:
    return {"twice": 2 * x, "pid": os.getpid(), "worker": os.getppid()}


def variables() -> dict[str, str]:
    return dict(os.environ)


def fail(kind: str) -> None:
    if kind == "cured":
        raise InputError("no such image")
    raise ValueError("a bug")


def fail_once(mark: str) -> str:
    path = Path(mark)
    if path.exists():
        return "second time"
    path.touch()
    raise ValueError("the first time")


def hold(number: int, folder: str) -> int:
    """Say who runs it; all but number 0 wait for the file ``go``; say that it ended."""
    place = Path(folder)
    with (place / "started").open("a") as stream:
        stream.write(f"{number} {os.getppid()} {os.getpid()}\n")
    while number and not (place / "go").exists():
        time.sleep(0.05)
    with (place / "ended").open("a") as stream:
        stream.write(f"{number}\n")
    return number
