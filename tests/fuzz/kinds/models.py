"""Models, changed byte by byte or fact by fact: the walk and the reader refuse them in one line, or the interpreter,
in a process of its own, takes them. What ends the interpreter there is an outcome, told by signal and fact."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from qhyvit.errors import QhyvitError
from qhyvit.tflite import flatbuffer
from qhyvit.tflite.read import read
from qhyvit_device import flat
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.runner import TfliteFile
from tests.fuzz.kind import Case, Kind, must
from tests.fuzz.mutate import changed

SECONDS, MEMORY = 5, 4 << 30  # of the interpreter's process; of memory more than this one has
REFUSED, FAILED = 3, 4
INTS = (-(2**31), -129, -2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 127, 255, 1000, 65536, 2**24, 2**31 - 1)
FLOATS = (0.0, -1.0, 1e-30, 1e-9, 0.5, 1.0, 3e38, float("nan"), float("inf"))


def _shape(rng: Random, model: Any) -> str:
    number, tensor = _tensor(rng, model)
    shape = [int(v) for v in (tensor.shape if tensor.shape is not None else [])]
    choice = rng.randrange(4)
    if choice == 0 or not shape:
        shape.insert(rng.randrange(len(shape) + 1), rng.choice(INTS[3:15]))
    elif choice == 1:
        del shape[rng.randrange(len(shape))]
    elif choice == 2:
        rng.shuffle(shape)
    else:
        shape[rng.randrange(len(shape))] = rng.choice(INTS)
    tensor.shape = shape
    return f"shape {_role(model, number)}"


def _type(rng: Random, model: Any) -> str:
    number, tensor = _tensor(rng, model)
    tensor.type = rng.randrange(20)
    return f"type {_role(model, number)}"


def _scale(rng: Random, model: Any) -> str:
    number, tensor = _tensor(rng, model)
    found = tensor.quantization
    if found is None:
        return _shape(rng, model)
    choice = rng.randrange(5)
    if choice == 0:
        tensor.quantization = None
    elif choice == 1:
        found.scale = [rng.choice(FLOATS)] * rng.choice((0, 1, 2, 8))
    elif choice == 2:
        found.zeroPoint = [rng.choice(INTS)] * rng.choice((0, 1, 2, 8))
    elif choice == 3:
        found.quantizedDimension = rng.choice(INTS)
    elif found.scale is not None and len(found.scale):
        found.scale = [*found.scale][:-1] or [rng.choice(FLOATS)]
    return f"quantization {_role(model, number)}"


def _operand(rng: Random, model: Any) -> str:
    operator = rng.choice(model.subgraphs[0].operators)
    part = rng.choice(("inputs", "outputs"))
    found = [int(v) for v in getattr(operator, part)]
    at, other = rng.randrange(len(found)), rng.randrange(-1, len(model.subgraphs[0].tensors))
    choice = rng.randrange(4)
    if choice == 0:
        del found[at]
    elif choice == 1:
        found.insert(at, other)
    else:
        found[at] = other
    setattr(operator, part, found)
    return f"{part} of {flatbuffer.op_name(model, operator)}"


def _option(rng: Random, model: Any) -> str:
    operator = rng.choice(model.subgraphs[0].operators)
    options = operator.builtinOptions
    if options is None or rng.random() < 0.2:
        other = rng.choice(model.subgraphs[0].operators)
        operator.builtinOptions, operator.builtinOptionsType = other.builtinOptions, other.builtinOptionsType
        return f"options of {flatbuffer.op_name(model, operator)} for another op's"
    name = rng.choice(sorted(vars(options)) or ["none"])
    value = getattr(options, name, 0)
    odd: Any = [rng.choice(INTS)] * rng.randint(0, 9)
    if isinstance(value, bool):
        odd = not value
    elif isinstance(value, int | float):
        odd = rng.choice(INTS if isinstance(value, int) else FLOATS)
    setattr(options, name, odd)
    return f"{name} of {flatbuffer.op_name(model, operator)}"


def _code(rng: Random, model: Any) -> str:
    code = rng.choice(model.operatorCodes)
    before = flatbuffer.BUILTIN.get(max(code.builtinCode, code.deprecatedBuiltinCode), "?")
    code.builtinCode = rng.randrange(-1, 215)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = rng.choice((0, 1, 1, 2, 3, 4, 9))
    after = flatbuffer.BUILTIN.get(code.builtinCode, str(code.builtinCode))
    return f"{before} is called {after}"


def _order(rng: Random, model: Any) -> str:
    operators = model.subgraphs[0].operators
    at = rng.randrange(len(operators))
    choice = rng.randrange(3)
    if choice == 0:
        del operators[at]
    elif choice == 1:
        operators.insert(at, operators[at])
    else:
        rng.shuffle(operators)
    return "order of ops"


def _content(rng: Random, model: Any) -> str:
    held = [
        (i, t) for i, t in enumerate(model.subgraphs[0].tensors)
        if model.buffers[t.buffer].data is not None and len(model.buffers[t.buffer].data)
    ]  # fmt: skip
    number, tensor = rng.choice(held)
    data = bytes(bytearray(model.buffers[tensor.buffer].data))
    if tensor.type == 2 and rng.random() < 0.7:  # int32: sizes, axes, permutations
        words = np.frombuffer(data[: len(data) // 4 * 4], np.int32).copy()
        words[rng.randrange(len(words))] = rng.choice(INTS)
        data = words.tobytes()
    else:
        data = changed(rng, data)
    model.buffers[tensor.buffer].data = np.frombuffer(data, np.uint8)
    return f"content {_role(model, number)}"


def _end(rng: Random, model: Any) -> str:
    graph = model.subgraphs[0]
    part = rng.choice(("inputs", "outputs"))
    found = [int(v) for v in getattr(graph, part)]
    found[0:1] = [rng.randrange(len(graph.tensors)) for _ in range(rng.randint(0, 2))]
    setattr(graph, part, found)
    return f"{part} of the graph"


def _tensor(rng: Random, model: Any) -> tuple[int, Any]:
    number = rng.randrange(len(model.subgraphs[0].tensors))
    return number, model.subgraphs[0].tensors[number]


def _role(model: Any, number: int) -> str:
    """What reads a tensor, or else writes it."""
    for part, word in (("inputs", "input"), ("outputs", "output")):
        for operator in model.subgraphs[0].operators:
            places = [int(v) for v in getattr(operator, part)]
            if number in places:
                return f"of {word} {places.index(number)} of {flatbuffer.op_name(model, operator)}"
    return "of a tensor without use"


EDITS: tuple[Callable[[Random, Any], str], ...] = (
    _shape, _shape, _type, _scale, _operand, _operand, _option, _option, _code, _order, _content, _content, _end,
)  # fmt: skip


def draw(rng: Random) -> Case:
    """A model, and what was changed."""
    originals = [path.read_bytes() for path in sorted(Path("models").iterdir())]
    data = rng.choice(originals)
    if rng.random() < 0.3:
        return changed(rng, data, originals), b"bytes"
    model = flatbuffer.load_model(data)
    said = []
    for _ in range(1 if rng.random() < 0.8 else rng.randint(2, 3)):
        try:
            said.append(rng.choice(EDITS)(rng, model))
        except (IndexError, ValueError, TypeError):  # an edit before left nothing to change
            break
    try:
        return flatbuffer.pack(model), "; ".join(said).encode()
    except Exception:  # flatbuffers cannot write it
        return changed(rng, data, originals), b"bytes"


def run(case: Case) -> str:
    """Walk, read and start it."""
    data, what = case[0], case[1].decode()
    passed = True
    try:
        flat.check(data, "m")
    except InputError as error:
        passed = False
        must(str(error).startswith("m: ") and "\n" not in str(error), error)
    try:
        read(data)
        must(passed, "the reader takes what the walk refuses")
    except QhyvitError as error:
        must("\n" not in str(error), error)
    if not passed:
        return "refused by the walk"
    code = in_fork(data)
    must(code != FAILED, "TfliteFile raises what is no error of ours")
    if code < 0:
        return f"{signal.Signals(-code).name}: {what}"
    return {0: "runs", REFUSED: "refused by the interpreter"}.get(code, f"exit code {code}: {what}")


def in_fork(data: bytes) -> int:
    """How a process ends that starts a model and runs it once on zeros; minus the signal."""
    child = os.fork()
    if child == 0:
        code = FAILED
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            file = TfliteFile(data, "m")
            file.invoke(np.zeros(tuple(file.input["shape"]), file.input["dtype"]))
            code = 0
        except (DeviceError, MemoryError):
            code = REFUSED
        except BaseException:
            code = FAILED
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


KIND = Kind("models", 20, draw, run, seconds=20)
