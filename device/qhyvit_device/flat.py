"""Bounds check of a ``.tflite`` before the interpreter maps it: the interpreter follows offsets without looking."""

from __future__ import annotations

import math
import struct

from qhyvit_device.errors import InputError

IDENTIFIER = b"TFL3"
LARGEST_TENSOR = 1 << 28  # elements: above, the file means harm or another machine
MOST_AXES = 8
MOST_VISITS = 500_000  # of tables, list entries and tensor indices: networks of a thousand ops have 20,000
# The one operand that these ops may leave out, the bias: by builtin code, its place among the inputs.
OPTIONAL = {3: 2, 4: 2, 9: 2, 67: 3}  # CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, TRANSPOSE_CONV
NO_NUMBERS = (5, 13, 14)  # types STRING, RESOURCE, VARIANT
# DEPTHWISE_CONV_2D, STRIDED_SLICE, SPLIT, BATCH_MATMUL read so many without counting; one left out is -1
OPERANDS = {4: 3, 45: 4, 49: 2, 126: 2}
SPLIT, INT32 = 49, 2
# These ops divide by scales: ADD, AVERAGE_POOL, CONV, DEPTHWISE, FULLY_CONNECTED, LOGISTIC, MUL, SOFTMAX, TANH, MEAN,
# SUB, TRANSPOSE_CONV, SUM, RSQRT, QUANTIZE, HARD_SWISH, BATCH_MATMUL, GELU
WITH_SCALES = (0, 1, 3, 4, 9, 14, 18, 25, 28, 40, 41, 67, 74, 76, 114, 117, 126, 150)
CODES = (3, 7, 9)  # types UINT8, INT16, INT8
# What a table holds, by field number: the table of a child, a list of the child, or the size of a vector's elements.
# Source: the TFLite schema.
TABLES: dict[str, dict[int, str | list[str] | int]] = {
    "Model": {1: ["OperatorCode"], 2: ["SubGraph"], 3: 1, 4: ["Buffer"], 6: ["Metadata"], 7: ["Signature"]},
    "OperatorCode": {1: 1},
    "SubGraph": {0: ["Tensor"], 1: 4, 2: 4, 3: ["Operator"], 4: 1},
    "Tensor": {0: 4, 3: 1, 4: "Quantization"},
    "Quantization": {0: 4, 1: 4, 2: 4, 3: 8},
    "Operator": {1: 4, 2: 4},
    "Buffer": {0: 1},
    "Metadata": {0: 1},
    "Signature": {0: ["TensorMap"], 1: ["TensorMap"], 2: 1},
    "TensorMap": {0: 1},
}


class _Reader:
    """Reads with bounds; every place is a byte offset."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.seen: set[tuple[str, int]] = set()
        self.visits = 0
        self.codes: list[int] = []  # of the operators
        self.buffers: list[bool] = []  # whether each has content

    def at(self, form: str, place: int) -> int:
        if place < 0:
            raise IndexError(place)
        return int(struct.unpack_from(form, self.data, place)[0])

    def field(self, table: int, number: int) -> int | None:
        """Place of a field, None where it is absent."""
        vtable = table - self.at("<i", table)
        slot = 4 + 2 * number
        if slot + 2 > self.at("<H", vtable):
            return None
        offset = self.at("<H", vtable + slot)
        return table + offset if offset else None

    def vector(self, field: int, size: int) -> tuple[int, int]:
        """(first element, count) of a vector; all of it must lie inside."""
        start = field + self.at("<I", field)
        count = self.at("<I", start)
        if start + 4 + count * size > len(self.data):
            raise IndexError(start)
        return start + 4, count

    def count(self, visits: int) -> None:
        """Bound the time: tables and lists may be shared and overlap, so that few bytes name very many."""
        self.visits += visits
        if self.visits > MOST_VISITS:
            raise InputError("it holds more tables than a network has")

    def number(self, form: str, table: int, field: int, default: int) -> int:
        """A scalar of a table."""
        place = self.field(table, field)
        return default if place is None else self.at(form, place)

    def children(self, table: int, number: int) -> list[int]:
        """Places of the tables of a list."""
        field = self.field(table, number)
        if field is None:
            return []
        first, count = self.vector(field, 4)
        self.count(count)
        return [slot + self.at("<I", slot) for slot in range(first, first + 4 * count, 4)]

    def integers(self, table: int, number: int) -> list[int]:
        """Elements of a list of int32."""
        field = self.field(table, number)
        if field is None:
            return []
        first, count = self.vector(field, 4)
        self.count(count)
        return list(struct.unpack_from(f"<{count}i", self.data, first))

    def model(self) -> None:
        """Check the whole file."""
        root = self.at("<I", 0)
        self.buffers = [self.filled(buffer) for buffer in self.children(root, 4)]
        for code in self.children(root, 1):  # an old field of one byte, and the one that replaced it
            self.codes.append(max(self.number("<b", code, 0, 0), self.number("<i", code, 3, 0)))
        if not self.children(root, 2):
            raise InputError("it has no subgraph")
        self.walk("Model", root)

    def walk(self, kind: str, table: int) -> None:
        """Check a table and everything below it that we know, once."""
        self.count(1)
        if (kind, table) in self.seen:
            return
        self.seen.add((kind, table))
        for number, child in TABLES[kind].items():
            field = self.field(table, number)
            if field is None:
                continue
            if isinstance(child, int):
                self.vector(field, child)
            elif isinstance(child, str):
                self.walk(child, field + self.at("<I", field))
            else:
                for place in self.children(table, number):
                    self.walk(child[0], place)
        if kind == "Buffer":
            self.outside(table)
        if kind == "Tensor":
            self.claimed(table)
        if kind == "SubGraph":
            self.indices(table)

    def filled(self, buffer: int) -> bool:
        """Whether a buffer has content, inside the flatbuffer or behind it."""
        inside = self.field(buffer, 0)
        return (inside is not None and self.vector(inside, 1)[1] > 0) or self.number("<Q", buffer, 1, 0) > 1

    def constant(self, tensor: int) -> bool:
        """Whether a tensor has a value before the first op runs: a constant, a variable, or no elements at all."""
        buffer = self.number("<I", tensor, 2, 0)
        if buffer >= len(self.buffers):
            raise InputError("a tensor names a buffer that is not there")
        return self.buffers[buffer] or bool(self.number("<B", tensor, 5, 0)) or 0 in self.integers(tensor, 0)

    def indices(self, graph: int) -> None:
        """The interpreter takes a tensor's index as it is, and reads what no op wrote. -1: an operand left out."""
        tensors = self.children(graph, 0)
        constants = {i for i, tensor in enumerate(tensors) if self.constant(tensor)}
        inputs = self.known(self.integers(graph, 1), len(tensors))
        ready = constants | set(inputs)
        for operator in self.children(graph, 3):
            code = self.number("<I", operator, 0, 0)
            if code >= len(self.codes):
                raise InputError(f"an op has kind {code} of {len(self.codes)}")
            read, written = self.integers(operator, 1), self.integers(operator, 2)
            kind = self.codes[code]
            if len(read) != OPERANDS.get(kind, len(read)):
                raise InputError(f"an op of kind {kind} has {len(read)} inputs")
            optional = OPTIONAL.get(kind)
            if optional is not None and read[optional : optional + 1] == [-1]:
                del read[optional]
            if not read or not written:
                raise InputError("an op has no inputs, or no outputs")
            missing = set(self.known(read, len(tensors))) - ready
            if missing:
                raise InputError(f"an op reads tensor {min(missing)} before it is written")
            if kind == SPLIT and self.number("<b", tensors[read[0]], 1, 0) != INT32:
                raise InputError("a split has an axis that is no whole number")
            if again := ready.intersection(self.known(written, len(tensors))):
                raise InputError(f"an op writes tensor {min(again)}, which is there already")
            if kind in WITH_SCALES and not all(self.scaled(tensors[t]) for t in (*read, *written)):
                raise InputError("an op computes with codes that have no scale")
            ready.update(written)
        if not ready.issuperset(self.known(self.integers(graph, 2), len(tensors))):
            raise InputError("an output is never written")

    def scaled(self, tensor: int) -> bool:
        """Whether codes have scales, all of them positive; true of what holds no codes."""
        if self.number("<b", tensor, 1, 0) not in CODES:
            return True
        quantization = self.field(tensor, 4)
        scales = None if quantization is None else self.field(quantization + self.at("<I", quantization), 2)
        if scales is None:
            return False
        first, count = self.vector(scales, 4)
        self.count(count)
        return count > 0 and all(0 < s < math.inf for s in struct.unpack_from(f"<{count}f", self.data, first))

    @staticmethod
    def known(named: list[int], count: int) -> list[int]:
        """Indices of tensors, as they are."""
        for index in named:
            if not 0 <= index < count:
                raise InputError(f"it names tensor {index}, and has {count}")
        return named

    def claimed(self, table: int) -> None:
        """The interpreter takes memory for the shape that a tensor claims."""
        shape = self.integers(table, 0)
        if len(shape) > MOST_AXES:
            raise InputError(f"a tensor has {len(shape)} axes")
        elements = 1
        for size in shape:
            elements *= max(size, 1)
            if elements > LARGEST_TENSOR:
                raise InputError(f"a tensor claims more than {LARGEST_TENSOR >> 20} million elements")
        if self.number("<b", table, 1, 0) in NO_NUMBERS:
            raise InputError("a tensor holds no numbers")

    def outside(self, table: int) -> None:
        """A buffer may hold its bytes behind the flatbuffer: fields 1 and 2 are their offset and size."""
        place, length = self.field(table, 1), self.field(table, 2)
        if place is not None and length is not None and self.at("<Q", place) > 1:
            end = self.at("<Q", place) + self.at("<Q", length)
            if end > len(self.data):
                raise IndexError(end)


def check(data: bytes, name: str) -> None:
    """Refuse what is no whole model, or names tensors that it does not have.

    Raises:
        InputError: the identifier is missing, something lies outside the file, or the file means harm.
    """
    if len(data) < 16 or data[4:8] != IDENTIFIER:
        raise InputError(f"{name}: not a .tflite model (its identifier is missing)")
    try:
        _Reader(data).model()
    except (struct.error, IndexError, RecursionError) as error:
        raise InputError(f"{name}: the model is truncated or damaged") from error
    except InputError as error:
        raise InputError(f"{name}: refused, {error}") from error
