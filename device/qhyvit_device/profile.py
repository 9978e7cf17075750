"""Time by op: the profiler of LiteRT's C library, reached through ctypes; the interpreter has none.

``profile`` runs the measurement in a process of its own: the library writes to the terminal, and a library of another
version must not take the caller down with it. Source of the calls and structures: LiteRT's C headers, version 2.3.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit_device.errors import DeviceError
from qhyvit_device.runner import TfliteFile

CPU = 1  # bit of the processor among the accelerators
BUILTIN, XNNPACK = 2, 8  # kinds of events: a node of the graph; an operator inside a delegate's partition
DELEGATE = "Delegate"  # in the name of a node that is a whole partition: its operators are counted instead
ELEMENT = {"float32": 1, "uint8": 3, "int16": 7, "int8": 9}
WARMUP, SECONDS = 3, 300
Pointer = ctypes.c_void_p


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p), ("kind", ctypes.c_int), ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64), ("memory_before", ctypes.c_int64 * 3), ("memory_after", ctypes.c_int64 * 3),
        ("node", ctypes.c_uint64), ("part", ctypes.c_uint64), ("source", ctypes.c_int),
    )  # fmt: skip


class _Layout(ctypes.Structure):
    _fields_ = (("rank", ctypes.c_uint32), ("sizes", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8))


class _TensorType(ctypes.Structure):
    _fields_ = (("element", ctypes.c_int), ("layout", _Layout))


@dataclass(frozen=True)
class OpTime:
    """All ops of one name: how many in the graph, who runs them, microseconds a run (mean), share of all ops' time."""

    op: str
    kernel: str
    count: int
    us: float
    share: float


class _Library:
    """The shared library, its calls checked."""

    def __init__(self) -> None:
        import ai_edge_litert

        path = Path(next(iter(ai_edge_litert.__path__))) / "libLiteRt.so"
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise DeviceError(f"this runtime has no profiler ({path.name} cannot be loaded)") from error

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that gives a status."""
        function = getattr(self._library, name, None)
        if function is None:
            raise DeviceError(f"this runtime has no profiler (no {name}); it needs ai-edge-litert 2.3")
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status:
            raise DeviceError(f"profiling: {name} failed with status {status}")

    def made(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """Call a function that makes an object, its last argument."""
        result = Pointer()
        self.call(name, *arguments, ctypes.byref(result))
        return result


def _tensor_type(details: dict[str, Any]) -> _TensorType:
    shape, found = [int(v) for v in details["shape"]], _TensorType()
    found.element, found.layout.rank = ELEMENT[np.dtype(details["dtype"]).name], len(shape)
    for i, size in enumerate(shape):
        found.layout.sizes[i] = size
    return found


class _Compiled:
    """A compiled model with its profiler and one buffer at each end."""

    def __init__(self, path: Path, threads: int) -> None:
        self.library, file = _Library(), TfliteFile.load(path)
        made = self.library.made
        self._kept: list[Any] = []
        environment = made("LiteRtCreateEnvironment", 0, None)
        model = made("LiteRtCreateModelFromFile", environment, str(path).encode())
        options = made("LiteRtCreateOptions")
        self.library.call("LiteRtSetOptionsHardwareAccelerators", options, CPU)
        self._option(options, b"runtime_options_string", b"enable_profiling = true\n")
        self._option(options, b"xnnpack", f"num_threads = {threads}\n".encode())
        self.compiled = made("LiteRtCreateCompiledModel", environment, model, options)
        self.profiler = made("LiteRtCompiledModelGetProfiler", self.compiled)
        self.ends = [
            self._buffer(environment, side, details)
            for side, details in (("Input", file.input), ("Output", file.output))
        ]

    def _option(self, options: ctypes.c_void_p, name: bytes, text: bytes) -> None:
        payload = ctypes.create_string_buffer(text)
        release = ctypes.CFUNCTYPE(None, Pointer)(lambda _: None)  # Python frees the text
        self._kept += [payload, release]
        option = self.library.made("LiteRtCreateOpaqueOptions", name, ctypes.cast(payload, Pointer), release)
        self.library.call("LiteRtAddOpaqueOptions", options, option)

    def _buffer(self, environment: ctypes.c_void_p, side: str, details: dict[str, Any]) -> ctypes.c_void_p:
        zero, kind = ctypes.c_size_t(0), _tensor_type(details)
        wanted = self.library.made(f"LiteRtGetCompiledModel{side}BufferRequirements", self.compiled, zero, zero)
        return self.library.made(
            "LiteRtCreateManagedTensorBufferFromRequirements", environment, ctypes.byref(kind), wanted
        )  # fmt: skip

    def run(self) -> None:
        """One inference."""
        one, ends = ctypes.c_size_t(1), [(Pointer * 1)(end) for end in self.ends]
        self.library.call("LiteRtRunCompiledModel", self.compiled, ctypes.c_size_t(0), one, ends[0], one, ends[1])

    def events(self, runs: int) -> list[_Event]:
        """Events of ``runs`` inferences."""
        for _ in range(WARMUP):
            self.run()
        self.library.call("LiteRtStartProfiler", self.profiler)
        for _ in range(runs):
            self.run()
        self.library.call("LiteRtStopProfiler", self.profiler)
        count = ctypes.c_int()
        self.library.call("LiteRtGetNumProfilerEvents", self.profiler, ctypes.byref(count))
        events = (_Event * count.value)()
        self.library.call("LiteRtGetProfilerEvents", self.profiler, count, events)
        return list(events)


def by_name(events: list[tuple[str, int, int]], runs: int) -> list[OpTime]:
    """Sums of (name, kind, microseconds) events over ``runs``, the slowest first."""
    total: dict[tuple[str, str], list[int]] = defaultdict(list)
    for name, kind, us in events:
        if kind == XNNPACK or (kind == BUILTIN and DELEGATE not in name):
            total[name, "xnnpack" if kind == XNNPACK else "builtin"].append(us)
    everything = sum(sum(us) for us in total.values()) or 1
    found = [
        OpTime(name, kernel, round(len(us) / runs), round(sum(us) / runs, 1), round(sum(us) / everything, 4))
        for (name, kernel), us in total.items()
    ]
    return sorted(found, key=lambda o: -o.us)


def _measure(path: Path, threads: int, runs: int) -> list[OpTime]:
    events = _Compiled(path, threads).events(runs)
    return by_name([((e.tag or b"").decode(errors="replace"), e.kind, e.elapsed_us) for e in events], runs)


def profile(path: Path, threads: int = 1, runs: int = 20) -> list[OpTime]:
    """Time by op name of a ``.tflite``, mean of ``runs`` inferences on zeros.

    Raises:
        InputError: no model.
        DeviceError: the runtime has no profiler that is known here.
    """
    TfliteFile.load(path)  # a file that is no model is refused here, before the library maps it
    command = [sys.executable, "-m", "qhyvit_device.profile", str(path), str(threads), str(runs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"{path}: profiling did not end within {SECONDS} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        reason = lines[-1].removeprefix("error: ") if lines else f"the profiler stopped with code {done.returncode}"
        raise DeviceError(f"{path}: {reason}")
    return [OpTime(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def main(argv: list[str]) -> int:
    """The child's side: MODEL THREADS RUNS -> one JSON line."""
    try:
        found = _measure(Path(argv[0]), int(argv[1]), int(argv[2]))
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps([asdict(row) for row in found]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
