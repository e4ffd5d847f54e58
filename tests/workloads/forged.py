"""A .vmtrace put together by hand from any parts, each with the checksum that belongs to it."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import zstandard

MAGIC = b"\x89vmt\r\n\x1a\n"
HEADER: dict[str, Any] = {"granule": 4096}


def totals(**changed: Any) -> dict[str, Any]:
    """Return the totals of a trace of two reads of page 1 and no event."""
    reuse = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    return {
        "accesses": 2,
        "runs": 1,
        "reads": 2,
        "writes": 0,
        "fetches": 0,
        "longest_run": 2,
        "pages": 1,
        "processes": 1,
        "events": {},
        "reuse": reuse,
    } | changed


def sealed(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def frame(data: bytes) -> bytes:
    return zstandard.compress(data) if data else b""


def zeros(size: int) -> bytes:
    """Return a frame of so many zeros, which says its size, made in little memory."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=size)
    block = bytes(1 << 22)
    parts = [compressor.compress(block[: min(len(block), size - at)]) for at in range(0, size, len(block))]
    return b"".join([*parts, compressor.flush()])


def planes(table: Any) -> bytes:
    return np.ascontiguousarray(table).view(np.uint8).reshape(len(table), -1).T.tobytes()


EVENT = np.dtype(
    [("position", "<u4"), ("pid", "<u4"), ("op", "<u4"), ("address", "<i8"), ("length", "<i8"), ("argument", "<i8")]
)


def chunk(
    *,
    runs: int = 1,
    blocks: int = 1,
    longs: int = 0,
    events: list[tuple[int, int, int, int, int, int]] | int = 0,
    columns: dict[str, bytes] | None = None,
) -> bytes:
    """Return a chunk of two reads of page 1; `columns` are frames in the place of the right ones."""
    table = np.array(events if isinstance(events, list) else [], EVENT)
    count = len(table) if isinstance(events, list) else events
    right = {
        "rank": frame(b"\xff"),
        "block": frame(planes(np.array([1], "<i8"))),
        "kind": frame(b"\0"),
        "count": frame(b"\2"),
        "long": b"",
        "event": frame(planes(table)) if len(table) else b"",
    } | (columns or {})
    head = struct.pack("<4s4I6I", b"CHNK", runs, blocks, longs, count, *map(len, right.values()))
    return sealed(head + b"".join(right.values()))


def vmtrace(
    *,
    header: dict[str, Any] | bytes = HEADER,
    chunks: list[bytes] | None = None,
    footer: dict[str, Any] | bytes | None = None,
    events: int = 0,
    regions: tuple[int, bytes] | None = None,
) -> bytes:
    """Return a file of one chunk of two reads of page 1, or of the parts given."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = sealed(struct.pack("<8sII", MAGIC, 1, len(text)) + text)
    index = b""
    for part in [chunk()] if chunks is None else chunks:
        index += struct.pack("<QIIQI", len(data), len(part), 1, 2, events)
        data += part
    told = totals() if footer is None else footer
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    count, pages = regions or (1, frame(planes(np.array([1, 1], "<i8"))))
    head = struct.pack("<4s4I", b"FOOT", len(text), len(index) // 28, count, len(pages))
    foot = sealed(head + text + index + pages)
    return data + foot + sealed(struct.pack("<QI", len(data), len(foot))) + b"vmtrend\n"
