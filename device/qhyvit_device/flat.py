"""Bounds check of a ``.tflite`` before the interpreter maps it: the interpreter follows offsets without looking."""

from __future__ import annotations

import struct

from qhyvit_device.errors import InputError

IDENTIFIER = b"TFL3"
LARGEST_TENSOR = 1 << 28  # elements: above, the file means harm or another machine
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

    def walk(self, kind: str, table: int) -> None:
        """Check a table and everything below it that we know."""
        for number, child in TABLES[kind].items():
            field = self.field(table, number)
            if field is None:
                continue
            if isinstance(child, int):
                self.vector(field, child)
            elif isinstance(child, str):
                self.walk(child, field + self.at("<I", field))
            else:
                first, count = self.vector(field, 4)
                for slot in range(first, first + 4 * count, 4):
                    self.walk(child[0], slot + self.at("<I", slot))
        if kind == "Buffer":
            self.outside(table)
        if kind == "Tensor":
            self.claimed(table)

    def claimed(self, table: int) -> None:
        """The interpreter takes memory for the shape that a tensor claims."""
        place = self.field(table, 0)
        if place is None:
            return
        first, rank = self.vector(place, 4)
        elements = 1
        for i in range(rank):
            elements *= max(self.at("<i", first + 4 * i), 1)
            if elements > LARGEST_TENSOR:
                raise InputError(f"a tensor claims more than {LARGEST_TENSOR >> 20} million elements")

    def outside(self, table: int) -> None:
        """A buffer may hold its bytes behind the flatbuffer: fields 1 and 2 are their offset and size."""
        place, length = self.field(table, 1), self.field(table, 2)
        if place is not None and length is not None and self.at("<Q", place) > 1:
            end = self.at("<Q", place) + self.at("<Q", length)
            if end > len(self.data):
                raise IndexError(end)


def check(data: bytes, name: str) -> None:
    """Refuse what is no whole model.

    Raises:
        InputError: the identifier is missing, or something lies outside the file.
    """
    if len(data) < 16 or data[4:8] != IDENTIFIER:
        raise InputError(f"{name}: not a .tflite model (its identifier is missing)")
    reader = _Reader(data)
    try:
        reader.walk("Model", reader.at("<I", 0))
    except (struct.error, IndexError, RecursionError) as error:
        raise InputError(f"{name}: the model is truncated or damaged") from error
    except InputError as error:
        raise InputError(f"{name}: refused, {error}") from error
