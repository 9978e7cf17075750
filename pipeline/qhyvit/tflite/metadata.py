"""Metadata of a ``.tflite``, as MediaPipe and other libraries read it: pixels' normalisation, and names of classes.

A flatbuffer of its own (schema of TFLite's metadata, identifier M001) lies in a buffer of the model that is named
``TFLITE_METADATA``; the files that it names are a ZIP archive behind the model.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from qhyvit.tflite import flatbuffer

NAME, IDENTIFIER, OLDEST_PARSER = "TFLITE_METADATA", b"M001", "1.5.0"
LABELS = "labels.txt"
RGB, GRAYSCALE = 1, 2  # ColorSpaceType
IMAGE, NORMALIZATION, AXIS_LABELS = 2, 1, 2  # of two unions, and AssociatedFileType
EPOCH = (1980, 1, 1, 0, 0, 0)  # of a ZIP's files, so that the same content gives the same bytes


@dataclass(frozen=True)
class Described:
    """What metadata say of a model with one image as input.

    Args:
        name: of the model; ``input``, ``outputs``: of its tensors.
        mean, std: of pixels 0 to 255, one each channel: the input is (pixel - mean) / std.
        channels: 3 (RGB) or 1 (gray).
        labels: of the classes of the first output; empty: it has none.
        licence: of the weights, or "".
    """

    name: str
    input: str
    outputs: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int
    labels: tuple[str, ...] = ()
    licence: str = ""


class _Tables:
    """Writes tables whose fields are given by their number in the schema."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def table(self, fields: int, *, offsets: dict[int, int] | None = None, bytes_: dict[int, int] | None = None) -> int:
        builder = self.builder
        builder.StartObject(fields)
        for slot, offset in (offsets or {}).items():
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for slot, value in (bytes_ or {}).items():
            builder.PrependUint8Slot(slot, value, 0)
        return int(builder.EndObject())

    def vector(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def floats(self, values: Sequence[float]) -> int:
        return int(self.builder.CreateNumpyVector(np.asarray(values, np.float32)))

    def text(self, value: str) -> int:
        return int(self.builder.CreateString(value))


def _content(described: Described) -> bytes:
    """The metadata's flatbuffer."""
    t = _Tables()
    image = t.table(2, bytes_={0: RGB if described.channels == 3 else GRAYSCALE})
    content = t.table(3, offsets={1: image}, bytes_={0: IMAGE})
    normal = t.table(2, offsets={0: t.floats(described.mean), 1: t.floats(described.std)})
    unit = t.table(2, offsets={1: normal}, bytes_={0: NORMALIZATION})
    entry = t.table(7, offsets={0: t.text(described.input), 3: content, 4: t.vector([unit])})
    outputs = []
    for i, name in enumerate(described.outputs):
        offsets = {0: t.text(name)}
        if i == 0 and described.labels:
            labels = t.table(5, offsets={0: t.text(LABELS)}, bytes_={2: AXIS_LABELS})
            offsets[6] = t.vector([labels])
        outputs.append(t.table(7, offsets=offsets))
    subgraph = t.table(10, offsets={2: t.vector([entry]), 3: t.vector(outputs)})
    more = {5: t.text(described.licence)} if described.licence else {}
    model = t.table(
        8, offsets={0: t.text(described.name), 3: t.vector([subgraph]), **more, 7: t.text(OLDEST_PARSER)}
    )
    t.builder.Finish(model, file_identifier=IDENTIFIER)
    return bytes(t.builder.Output())


def with_metadata(model: bytes, described: Described) -> bytes:
    """The model with metadata, and with its labels behind it; what it computes is the same.

    Raises:
        InputError: the bytes are no model.
    """
    found = flatbuffer.load_model(model)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(_content(described), np.uint8)
    found.buffers.append(buffer)
    entry.name, entry.buffer = NAME, len(found.buffers) - 1
    found.metadata = [*(found.metadata or ()), entry]
    packed = flatbuffer.pack(found)
    if not described.labels:
        return packed
    stream = io.BytesIO()
    stream.write(packed)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, EPOCH), "\n".join(described.labels) + "\n")
    return stream.getvalue()
