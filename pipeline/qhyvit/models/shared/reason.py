"""The one line of an error of torch or of a converter that says most."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from pathlib import Path

TRACE = re.compile(r'File "(?P<file>[^<"][^"]*)", line (?P<line>\d+), in (?P<function>\w+)\n\s*(?P<code>[^\n]*)')
# of what stands between a model's code and the line that fails
TOOLS = (
    "/torch/",
    "/litert_torch/",
    "/jax/",
    "/jaxlib/",
    "/ai_edge_litert/",
    f"/{Path(__file__).parents[2].name}/models/",
)


def first_line(error: BaseException) -> str:
    """What an error says, cut after its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def reason(error: BaseException) -> str:
    """The first line, and where in the model's code the error arose, if that can be told."""
    frames = [(f.filename, f.lineno, f.name, f.line or "") for f in traceback.extract_tb(error.__traceback__)]
    written = [(m["file"], int(m["line"]), m["function"], m["code"]) for m in TRACE.finditer(str(error))]
    place = _innermost(written) or _innermost(frames)
    return first_line(error) if place is None else f"{first_line(error).rstrip('.')}. At {place}"


def _innermost(frames: Iterable[tuple[str, int | None, str, str]]) -> str | None:
    """The last of the calls that is a model's own."""
    own = [f for f in frames if not any(tool in Path(f[0]).as_posix() for tool in TOOLS) and f[2] == "forward"]
    return f"{Path(own[-1][0]).name}, line {own[-1][1]}, in forward: {own[-1][3].strip()}" if own else None
