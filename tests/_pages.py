"""Pages as a newcomer follows them: their files are written and their commands run, in their order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:qhyvit|qhyvit-device|make|pip|python3?|docker|ssh)\s[^`]+)`")
PROMPT = re.compile(r"^(board)?\$ ")
COMMENT = re.compile(r"\s{2,}# .*$|\s+# [^'\"]*$", re.MULTILINE)
PROGRAMS = {"python": "", "python3": "", "qhyvit": "-m qhyvit", "qhyvit-device": "-m qhyvit_device"}


@dataclass(frozen=True)
class Command:
    """A line that the reader types, here or at a board's prompt."""

    text: str
    board: bool = False


@dataclass(frozen=True)
class Shown:
    """What the page says that the commands since the last such lines print."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """A file of the reader's."""

    name: str
    body: str


Item = Command | Shown | Written


def items(page: str) -> Iterator[Item]:
    """What a page makes its reader do, from the first line to the last; commands within sentences included."""
    end = 0
    for block in BLOCK.finditer(page):
        yield from (Command(text) for text in INLINE.findall(page[end : block.start()]))
        yield from _of_block(block[1], block[2])
        end = block.end()
    yield from (Command(text) for text in INLINE.findall(page[end:]))


def _of_block(kind: str, body: str) -> Iterator[Item]:
    lines = COMMENT.sub("", body.replace("\\\n", " ")).splitlines()
    if kind == "text":
        yield Shown(tuple(body.splitlines()))
    elif kind == "python":
        yield Written(_first(r"# (\S+\.py)\n", body), body)
    elif kind == "toml":  # its first line is the command that takes it
        yield Written(_first(r"# .*--config (\S+)", body), body)
        yield Command(_first(r"# (.*)\n", body))
    elif kind == "console":
        prompts = ((PROMPT.match(line), line) for line in lines)
        yield from (Command(" ".join(line[m.end() :].split()), bool(m[1])) for m, line in prompts if m)
    else:
        yield from (Command(" ".join(line.split())) for line in lines if line.strip())


def _first(pattern: str, body: str) -> str:
    found = re.match(pattern, body)
    assert found, f"the block does not say what it is: {body[:60]}"
    return found[1]


@dataclass
class Desk:
    """Where a reader sits: an empty folder beside a clone, and programs of this checkout in ``bin``."""

    base: Path

    def __post_init__(self) -> None:
        (self.base / "qhyvit").symlink_to(ROOT)
        for name in ("bin", "home", "tour"):
            (self.base / name).mkdir()
        for name, arguments in PROGRAMS.items():
            script = self.base / "bin" / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
            script.chmod(0o755)

    @property
    def tour(self) -> Path:
        """The folder in which the reader works."""
        return self.base / "tour"

    def run(self, body: str, *, board: bool = False) -> str:
        """Standard output and error of a script, which must end with 0; at a board's prompt in its home."""
        here = os.pathsep.join(map(str, (ROOT / "pipeline", ROOT / "device", os.environ.get("PYTHONPATH", ""))))
        places = {"HOME": str(self.base / "home"), "TMPDIR": str(self.base / "home"), "PYTHONPATH": here}
        env: Mapping[str, str] = {**os.environ, **places, "PATH": f"{self.base / 'bin'}:{os.environ['PATH']}"}
        shell, folder = ["bash", "-euo", "pipefail", "-c", body], self.base / "home" if board else self.tour
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(shell, cwd=folder, env=env, text=True, check=False, **both)  # type: ignore[call-overload]
        assert done.returncode == 0, f"{body}\nended with {done.returncode}:\n{done.stdout}"
        return str(done.stdout)


def lines_like(text: str) -> list[re.Pattern[str]]:
    """The lines of what a page says is printed: numbers differ, and an ellipsis stands for anything."""
    lines = [line for line in text.splitlines() if line != "…"]
    return [re.compile(re.sub(r"\d+", r"\\d+", re.escape(line)).replace("…", ".*")) for line in lines]


def missing(shown: str, printed: str) -> list[str]:
    """Lines of a page that ``printed`` does not have, or has in another order."""
    at = iter(printed.splitlines())
    return [p.pattern for p in lines_like(shown) if not any(p.match(line) for line in at)]
