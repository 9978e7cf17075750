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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit_device.errors import DeviceError
from qhyvit_device.interpreter import TfliteFile

CPU = 1  # bit of the processor among the accelerators
# kinds of events: a call of the library; a node of the graph; an operator inside a delegate's partition
CALL, BUILTIN, XNNPACK = 1, 2, 8
WHOLE = "Invoke"  # the call that is one inference
DELEGATE = "Delegate"  # in the name of a node that is a whole partition: its operators are counted instead
ELEMENT = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9}
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


@dataclass(frozen=True)
class Event:
    """One op as it ran, in the order of execution: its name, who runs it, its node (None inside XNNPACK), microseconds.

    ``us`` is the mean of the faster half of the runs: what disturbs a run only adds to it.
    """

    name: str
    kernel: str
    node: int | None
    us: float


@dataclass(frozen=True)
class Profile:
    """Where the time of one model goes.

    Args:
        ops: times by name, the slowest first.
        events: every op that ran.
        overhead_us: microseconds of a run that no op takes, mean of the faster half of the runs.
        graph: nodes and tensors of the file, see :meth:`qhyvit_device.interpreter.TfliteFile.graph`.
    """

    ops: list[OpTime]
    events: list[Event]
    overhead_us: float
    graph: dict[str, Any] = field(default_factory=dict)


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
    shape, found, dtype = [int(v) for v in details["shape"]], _TensorType(), np.dtype(details["dtype"]).name
    if dtype not in ELEMENT:
        raise DeviceError(f"profiling: an input or output of type {dtype} is not known here")
    found.element, found.layout.rank = ELEMENT[dtype], len(shape)
    for i, size in enumerate(shape):
        found.layout.sizes[i] = size
    return found


class _Compiled:
    """A compiled model with its profiler and a buffer for each input and output."""

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
            [self._buffer(environment, side, i, details) for i, details in enumerate(all_details)]
            for side, all_details in (("Input", [file.input]), ("Output", file.outputs))
        ]

    def _option(self, options: ctypes.c_void_p, name: bytes, text: bytes) -> None:
        payload = ctypes.create_string_buffer(text)
        release = ctypes.CFUNCTYPE(None, Pointer)(lambda _: None)  # Python frees the text
        self._kept += [payload, release]
        option = self.library.made("LiteRtCreateOpaqueOptions", name, ctypes.cast(payload, Pointer), release)
        self.library.call("LiteRtAddOpaqueOptions", options, option)

    def _buffer(
        self, environment: ctypes.c_void_p, side: str, number: int, details: dict[str, Any]
    ) -> ctypes.c_void_p:
        signature, at, kind = ctypes.c_size_t(0), ctypes.c_size_t(number), _tensor_type(details)
        wanted = self.library.made(f"LiteRtGetCompiledModel{side}BufferRequirements", self.compiled, signature, at)
        return self.library.made(
            "LiteRtCreateManagedTensorBufferFromRequirements", environment, ctypes.byref(kind), wanted
        )  # fmt: skip

    def run(self) -> None:
        """One inference."""
        ends = [part for end in self.ends for part in (ctypes.c_size_t(len(end)), (Pointer * len(end))(*end))]
        self.library.call("LiteRtRunCompiledModel", self.compiled, ctypes.c_size_t(0), *ends)

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


def _kernel(name: str, kind: int) -> str | None:
    """Who runs it; None for events that are no op, or a whole partition."""
    if kind == XNNPACK:
        return "xnnpack"
    return "builtin" if kind == BUILTIN and DELEGATE not in name else None


def by_name(events: list[tuple[str, int, int]], runs: int) -> list[OpTime]:
    """Sums of (name, kind, microseconds) events over ``runs``, the slowest first."""
    total: dict[tuple[str, str], list[int]] = defaultdict(list)
    for name, kind, us in events:
        kernel = _kernel(name, kind)
        if kernel is not None:
            total[name, kernel].append(us)
    everything = sum(sum(us) for us in total.values()) or 1
    found = [
        OpTime(name, kernel, round(len(us) / runs), round(sum(us) / runs, 1), round(sum(us) / everything, 4))
        for (name, kernel), us in total.items()
    ]
    return sorted(found, key=lambda o: -o.us)


def _faster_half(samples: list[int]) -> float:
    kept = sorted(samples)[: -(-len(samples) // 2)]
    return round(sum(kept) / len(kept), 3)


def one_by_one(events: list[tuple[str, int, int, int]], runs: int) -> list[Event]:
    """Every op of (name, kind, microseconds, node) events in the order of execution; [] where runs differ."""
    own = [(name, kernel, us, node) for name, kind, us, node in events if (kernel := _kernel(name, kind)) is not None]
    count = len(own) // runs
    order = [(name, kernel, node if kernel == "builtin" else None) for name, kernel, _, node in own]
    if len(own) != count * runs or order != order[:count] * runs:
        return []
    return [Event(*what, _faster_half([us for _, _, us, _ in own[i::count]])) for i, what in enumerate(order[:count])]


def overhead(events: list[tuple[str, int, int, int]]) -> float:
    """Microseconds of a run that no op takes: each run is a call with the events of its ops behind it."""
    left: list[int] = []
    for name, kind, us, _ in events:
        if kind == CALL and name == WHOLE:
            left.append(us)
        elif left and _kernel(name, kind) is not None:
            left[-1] -= us
    return max(_faster_half(left or [0]), 0.0)


def _measure(path: Path, threads: int, runs: int) -> Profile:
    raw = _Compiled(path, threads).events(runs)
    events = [((e.tag or b"").decode(errors="replace"), e.kind, e.elapsed_us, e.node) for e in raw]
    return Profile(by_name([e[:3] for e in events], runs), one_by_one(events, runs), overhead(events))


def profile(path: Path, threads: int = 1, runs: int = 20) -> Profile:
    """Time by op of a ``.tflite`` over ``runs`` inferences on zeros.

    Raises:
        InputError: no model.
        DeviceError: the runtime has no profiler that is known here.
    """
    file = TfliteFile.load(path)  # a file that is no model is refused here, before the library maps it
    command = [sys.executable, "-m", "qhyvit_device.profile", str(path), str(threads), str(runs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"{path}: profiling did not end within {SECONDS} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        reason = lines[-1].removeprefix("error: ") if lines else f"the profiler stopped with code {done.returncode}"
        raise DeviceError(f"{path}: {reason}")
    raw = json.loads(done.stdout.splitlines()[-1])
    ops, events = [OpTime(**row) for row in raw["ops"]], [Event(**row) for row in raw["events"]]
    return Profile(ops, events, raw["overhead_us"], file.graph())


def main(argv: list[str]) -> int:
    """The child's side: MODEL THREADS RUNS -> one JSON line."""
    try:
        found = _measure(Path(argv[0]), int(argv[1]), int(argv[2]))
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
