"""Changes of contents: bytes, what has checksums inside, JSON and text."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

WORDS = (b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1", b"\1\0\0\0")
PNG = b"\x89PNG\r\n\x1a\n"
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 255, 256, 2**31 - 1, 2**31, -(2**31), 2**53 + 1, 2**63, -(2**63), 10**400,
    0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), "", " ", "\0", "a\nb", "é",
    "\udcff", "\x1b]0;x\x07\x1b[2J", "\u2028", "x" * 300, "..", "/", "../x", "nan", "1", [], {}, [[]], [None],
    {"": None},
    [0] * 50, {"a": 1}, [1, 2, 3], [0.5] * 3, [float("nan")] * 3, ["crop"], [-(2**63)] * 5,
)  # fmt: skip


def changed(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to six bytes or pieces of ``data`` changed, cut off, doubled or put in, also from one of ``others``."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(found) + 1)
        length = min(rng.randint(1, 8) if rng.random() < 0.7 else rng.randint(1, max(len(found), 1)), len(found))
        choice = rng.randrange(8)
        if choice == 0 and found:
            found[at % len(found)] ^= 1 << rng.randrange(8)
        elif choice == 1 and found:
            found[at % len(found)] = rng.randrange(256)
        elif choice == 2:
            del found[at : at + length]
        elif choice == 3:
            found[at:at] = rng.randbytes(rng.randint(1, 40))
        elif choice == 4:
            found[at : at + 4] = rng.choice(WORDS)
        elif choice == 5:
            found[at:at] = found[at : at + length]  # doubled
        elif choice == 6:
            found[at : at + length] = bytes(min(length, len(found) - at))
        elif others:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            found[at : at + length] = other[start : start + length]
    return bytes(found)


def changed_png(rng: Random, data: bytes) -> bytes:
    """A PNG whose chunks are changed and have right checksums, their pixels before compression."""
    chunks, at = [], len(PNG)
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    number = rng.randrange(len(chunks))
    name, body = chunks[number]
    if name == b"IDAT" and rng.random() < 0.5:
        body = zlib.compress(changed(rng, zlib.decompress(body)), rng.randint(0, 9))
    elif rng.random() < 0.8:
        body = changed(rng, body)
    else:
        chunks.insert(rng.randrange(len(chunks)), (name, body))
    chunks[number] = name, body
    parts = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks]
    return PNG + b"".join(parts)


def changed_zip(rng: Random, data: bytes) -> bytes:
    """A zip file with a member changed, left out or renamed; its checksums are right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        picked = rng.choice([n for n in names if n.endswith("data.pkl")] or names) if rng.random() < 0.7 else None
        picked = picked or rng.choice(names)
        choice = rng.random()
        for name in names:
            content = old.read(name)
            if name == picked and choice < 0.1:
                continue
            renamed = name + "x" if name == picked and choice < 0.2 else name
            new.writestr(renamed, changed(rng, content) if name == picked and choice >= 0.2 else content)
    return out.getvalue()


def changed_json(rng: Random, raw: Any) -> Any:
    """Plain data with one to three values changed, left out, doubled or put in."""
    for _ in range(rng.randint(1, 3)):
        raw = _changed_at(rng, raw)
    return raw


def _changed_at(rng: Random, raw: Any) -> Any:
    if isinstance(raw, dict) and raw and rng.random() < 0.9:
        key = rng.choice(sorted(raw))
        choice = rng.random()
        if choice < 0.1:
            return {k: v for k, v in raw.items() if k != key}
        if choice < 0.2:
            return {**raw, _name(rng, key): raw[key]}
        return {k: _changed_at(rng, v) if k == key else v for k, v in raw.items()}
    if isinstance(raw, list) and raw and rng.random() < 0.9:
        at = rng.randrange(len(raw))
        choice = rng.random()
        if choice < 0.1:
            return raw[:at]
        if choice < 0.2:
            return [*raw, raw[at]]
        return [*raw[:at], _changed_at(rng, raw[at]), *raw[at + 1 :]]
    if isinstance(raw, int | float) and not isinstance(raw, bool) and abs(raw) < 2**63 and rng.random() < 0.5:
        return rng.choice((-raw, raw + 1, raw - 1, raw * 2, raw * 1e6, raw / 1e6, str(raw)))
    if isinstance(raw, str) and raw and rng.random() < 0.5:
        return changed_text(rng, raw)
    return rng.choice(ODD)


def _name(rng: Random, key: str) -> str:
    return rng.choice((key + "x", key.upper(), "", "\0", "\udcff", key[1:]))


def changed_text(rng: Random, text: str) -> str:
    """A text with characters changed, lone surrogates among them."""
    return changed(rng, text.encode(errors="surrogateescape")).decode(errors="surrogateescape")


def changed_document(
    rng: Random, data: bytes, dumps: Callable[[Any], str] = json.dumps, loads: Callable[[Any], Any] = json.loads
) -> bytes:
    """A document (JSON unless ``dumps`` and ``loads`` are another's) whose values are changed, or its bytes."""
    if rng.random() < 0.25:
        return changed(rng, data)
    return dumps(changed_json(rng, loads(data.decode()))).encode(errors="surrogatepass")
