"""The process of one job: reads it from stdin, runs it, writes its result whole, and ends when its parent dies."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from qhyvit import files, memory
from qhyvit.errors import QhyvitError, UsageError
from qhyvit_device import __version__
from qhyvit_device.board import peak_memory_mib

ORPHANED = 3


def _end_with_parent() -> None:
    """Nothing follows the job on stdin: what ends the wait is the end of the parent."""
    while os.read(0, 1):
        pass
    os._exit(ORPHANED)


def work(request: dict[str, Any]) -> None:
    """Run a job and write its result.

    Raises:
        UsageError: the client runs another version.
    """
    if request["version"] != __version__:
        raise UsageError(f"this worker has qhyvit {__version__}, the sweep was started by {request['version']}")
    module, _, name = request["function"].partition(":")
    started = time.monotonic()
    value = getattr(importlib.import_module(module), name)(**request["arguments"])
    process = {
        "seconds": round(time.monotonic() - started, 2), "cpu_seconds": round(time.process_time(), 2),
        "peak_mib": round(peak_memory_mib() or 0.0, 1),
    }  # fmt: skip
    result = {"label": request["label"], "key": request["key"], "value": value, "process": process}
    files.write_text(Path(request["result_file"]), json.dumps(result, indent=1) + "\n")


def main() -> int:
    """Entry point; what a user can cure ends as one line on stderr."""
    memory.share_one_heap()
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(request)
    except QhyvitError as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
