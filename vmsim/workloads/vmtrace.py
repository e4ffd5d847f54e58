"""The `.vmtrace` format: runs of accesses, columnar, compressed, checksummed, read in bounded memory.

docs/reference/vmtrace.md says what every byte means. In short: a header with JSON, chunks that can each be decoded by
themselves, a footer with totals, an index of the chunks and the regions touched, and a trailer that finds the footer.
Every byte is covered by a CRC-32.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zstandard
from numpy.typing import NDArray

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.workloads.columns import COLUMNS, EVENT, Columns, decode, encode
from vmsim.workloads.footers import checked_header, checked_totals, parsed
from vmsim.workloads.opening import seekable
from vmsim.workloads.runs import GRANULES, MOST_EVENTS, MOST_RUNS, check_granule
from vmsim.workloads.stream import PAGE, WIDEST_END, Chunk, Regions
from vmsim.workloads.summary import Summary

__all__ = ["MAGIC", "VERSION", "Vmtrace", "VmtraceWriter"]

MAGIC = b"\x89vmt\r\n\x1a\n"
VERSION = 2
READABLE = (1, 2)  # 1 has no operations above 9
LEVEL = 15  # of zstandard: 2 % larger than level 19, 2.5 times as fast

_HEADER = struct.Struct("<8sII")  # magic, version, bytes of JSON
_CHUNK = struct.Struct("<4s4I6I")  # "CHNK", runs, new blocks, long counts, events, bytes of each column
_FOOTER = struct.Struct("<4s4I")  # "FOOT", bytes of JSON, chunks, regions, bytes of the regions' frame
_TRAILER = struct.Struct("<QI")  # position and length of the footer
_CRC = struct.Struct("<I")
_END = b"vmtrend\n"
_INDEX = np.dtype([("offset", "<u8"), ("length", "<u4"), ("runs", "<u4"), ("accesses", "<u8"), ("events", "<u4")])
_LAST = _TRAILER.size + _CRC.size + len(_END)
_MOST_REGIONS = 1 << 23  # 128 MiB in memory
_LONGEST_CHUNK = 1 << 26  # bytes: more than the columns of a full chunk that do not shrink at all
_LONGEST_FOOTER = 1 << 28
_LONGEST_JSON = 1 << 20
_ITEMS = {"rank": "u1", "block": "<i8", "kind": "u1", "count": "u1", "long": "<u4", "event": EVENT}


def _sealed(data: bytes) -> bytes:
    return data + _CRC.pack(zlib.crc32(data))


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _compress(column: NDArray[Any]) -> bytes:
    """Return a zstandard frame of a column, wide items as byte planes; of an empty column, nothing."""
    if not len(column):
        return b""
    planes = np.ascontiguousarray(column).view(np.uint8).reshape(len(column), -1).T
    return zstandard.ZstdCompressor(level=LEVEL).compress(planes.tobytes())


def _decompress(frame: bytes, count: int, dtype: Any) -> NDArray[Any]:
    """Undo `_compress`, given the number of items; ValueError if the frame is not one of theirs."""
    item = np.dtype(dtype)
    if not count:
        if frame:
            raise ValueError("expected no bytes for an empty column")
        return np.empty(0, item)
    try:
        if zstandard.frame_content_size(frame) != count * item.itemsize:
            raise ValueError(f"expected a zstandard frame of {count} items of {item.itemsize} bytes")
        data = zstandard.ZstdDecompressor().decompress(frame)
    except zstandard.ZstdError as error:
        raise ValueError(f"expected a zstandard frame ({error})") from error
    planes = np.frombuffer(data, np.uint8).reshape(item.itemsize, count)
    return np.ascontiguousarray(planes.T).reshape(-1).view(item)


class VmtraceWriter:
    """Writes chunks to a binary file as they come.

    Parameters
    ----------
    file : binary file
        Open for writing, at its start.
    granule : int
        Bytes of a block: 4096, or 64.
    about : dict
        What else the header says, as JSON: `command`, `tool`, `source` …
    """

    def __init__(self, file: BinaryIO, *, granule: int, about: dict[str, Any]) -> None:
        check_granule(granule)
        self._file = file
        self._shift = granule.bit_length() - 1
        self._index: list[tuple[int, int, int, int, int]] = []
        self.summary = Summary()
        text = _json(about | {"granule": granule})
        if len(text) > _LONGEST_JSON:
            raise InputError(f"the header of a trace has {len(text):,} bytes: expected at most {_LONGEST_JSON:,}.")
        self._at = file.write(_sealed(_HEADER.pack(MAGIC, VERSION, len(text)) + text))

    def add(self, chunk: Chunk) -> None:
        """Write a chunk of at most 2**20 runs."""
        runs = len(chunk.address)
        if runs > MOST_RUNS or len(chunk.events) > MOST_EVENTS:
            raise ValueError(
                f"a chunk of {runs} runs and {len(chunk.events)} events: expected at most {MOST_RUNS} and {MOST_EVENTS}"
            )
        columns = encode(chunk, self._shift)
        frames = [_compress(column) for column in columns]
        head = _CHUNK.pack(b"CHNK", runs, len(columns.block), len(columns.long), len(chunk.events), *map(len, frames))
        data = _sealed(b"".join([head, *frames]))
        accesses = int(chunk.count.sum(dtype=np.int64))
        self._index.append((self._at, len(data), runs, accesses, len(chunk.events)))
        self._at += self._file.write(data)
        self.summary.add(chunk, columns.rank)

    def close(self) -> None:
        """Write the footer and the trailer. The file itself stays open."""
        starts, lengths = self.summary.regions()
        if len(starts) > _MOST_REGIONS:
            raise InputError(f"the trace touches {len(starts):,} regions: expected at most {_MOST_REGIONS:,}.")
        frame = _compress(np.concatenate((np.diff(starts, prepend=np.int64(0)), lengths)) // PAGE)
        text = _json(self.summary.totals())
        footer = b"".join(
            [
                _FOOTER.pack(b"FOOT", len(text), len(self._index), len(starts), len(frame)),
                text,
                np.array(self._index, _INDEX).tobytes(),
                frame,
            ]
        )
        footer = _sealed(footer)
        self._file.write(footer + _sealed(_TRAILER.pack(self._at, len(footer))) + _END)


@dataclass(frozen=True)
class Vmtrace:
    """A `.vmtrace` file, opened: its header and footer are read, its chunks are not.

    Attributes
    ----------
    path : Path
    about : dict
        The header's JSON: `granule`, and what the recorder noted (`command`, `tool`).
    totals : dict
        The footer's JSON: accesses, runs, reads, writes, fetches, events, pages and so on.
    index : structured array
        Of every chunk: offset, length, runs, accesses, events.
    regions : (int64[k], int64[k])
        Starts and lengths in bytes of the pages touched.
    """

    path: Path
    about: dict[str, Any]
    totals: dict[str, Any]
    index: NDArray[np.void]
    regions: Regions

    @property
    def granule(self) -> int:
        """Bytes of a block."""
        return int(self.about["granule"])

    @classmethod
    def open(cls, path: Path) -> Vmtrace:
        """Read header and footer.

        Raises
        ------
        InputError
            The file is missing, cut short, damaged, or of another version.
        """
        name = printable(path)
        with seekable(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            about, start = _read_header(file, name, size)
            totals, index, regions, offset = _read_footer(file, name, size)
        ends = np.concatenate(([start], index["offset"] + index["length"])).astype(np.int64)
        if not np.array_equal(ends, np.append(index["offset"], offset)):
            raise InputError(f"{name}: the footer's index is wrong: expected chunks one after another.")
        return cls(path, about, totals, index, regions)

    def chunks(self) -> Iterator[Chunk]:
        """Read the chunks in order, one at a time.

        Raises
        ------
        InputError
            A chunk is damaged; the message has its number and where it starts.
        """
        shift = self.granule.bit_length() - 1
        name = printable(self.path)
        with seekable(self.path) as file:
            for number, entry in enumerate(self.index):
                where = f"{name}: chunk {number} at byte {entry['offset']}"
                file.seek(int(entry["offset"]))
                data = _unsealed(file.read(int(entry["length"])), int(entry["length"]), where)
                try:
                    chunk = _read_chunk(data, shift)
                except ValueError as error:
                    raise InputError(f"{where}: {error}.") from error
                found = len(chunk.count), int(chunk.count.sum(dtype=np.int64)), len(chunk.events)
                told = int(entry["runs"]), int(entry["accesses"]), int(entry["events"])
                if found != told:
                    raise InputError(f"{where}: expected (runs, accesses, events) = {told}, found {found}.")
                yield chunk


def _unsealed(data: bytes, length: int, where: str) -> bytes:
    """Return data without its CRC, once that is checked."""
    if len(data) < length or length < _CRC.size:
        raise InputError(f"{where}: the file is cut short: expected {length} bytes, found {len(data)}.")
    body, told = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])[0]
    found = zlib.crc32(body)
    if found != told:
        raise InputError(f"{where}: the bytes are damaged: expected CRC-32 {told:#010x}, found {found:#010x}.")
    return body


def _read_header(file: BinaryIO, name: str, size: int) -> tuple[dict[str, Any], int]:
    head = file.read(_HEADER.size)
    if not head.startswith(MAGIC):
        raise InputError(f"{name}: not a .vmtrace file: expected it to begin with {MAGIC!r}, found {head[:8]!r}.")
    if len(head) < _HEADER.size:
        raise InputError(f"{name}: header: the file is cut short after {len(head)} bytes.")
    _, version, length = _HEADER.unpack(head)
    if version not in READABLE:
        raise InputError(f"{name}: version {version} of .vmtrace: expected {' or '.join(map(str, READABLE))}.")
    total = _HEADER.size + length + _CRC.size
    if total > size:
        raise InputError(f"{name}: header: the file is cut short: expected {total} bytes, found {size}.")
    if length > _LONGEST_JSON:
        raise InputError(f"{name}: header of {length:,} bytes: expected at most {_LONGEST_JSON:,}.")
    where = f"{name}: header"
    body = _unsealed(head + file.read(length + _CRC.size), total, where)
    return checked_header(parsed(body[_HEADER.size :], where), GRANULES, where), total


def _read_footer(file: BinaryIO, name: str, size: int) -> tuple[dict[str, Any], NDArray[np.void], Regions, int]:
    file.seek(max(0, size - _LAST))
    last = file.read()
    if len(last) < _LAST or not last.endswith(_END):
        raise InputError(f"{name}: the file is cut short: expected it to end with {_END!r}, found {last[-8:]!r}.")
    where = f"{name}: trailer"
    offset, length = _TRAILER.unpack(_unsealed(last[: -len(_END)], _LAST - len(_END), where))
    if offset + length + _LAST != size:
        raise InputError(f"{where}: expected a file of {offset + length + _LAST} bytes, found {size}.")
    where = f"{name}: footer at byte {offset}"
    if length > _LONGEST_FOOTER:
        raise InputError(f"{where}: {length:,} bytes: expected at most {_LONGEST_FOOTER:,}.")
    file.seek(offset)
    body = _unsealed(file.read(length), length, where)
    if len(body) < _FOOTER.size or not body.startswith(b"FOOT"):
        raise InputError(f"{where}: expected b'FOOT', found {body[:4]!r}.")
    _, text, chunks, count, frame = _FOOTER.unpack_from(body)
    start = _FOOTER.size + text
    if start + chunks * _INDEX.itemsize + frame != len(body):
        raise InputError(f"{where}: expected parts of {len(body)} bytes together.")
    if text > _LONGEST_JSON or count > _MOST_REGIONS:
        raise InputError(
            f"{where}: {text:,} bytes of JSON and {count:,} regions: expected at most {_LONGEST_JSON:,} and "
            f"{_MOST_REGIONS:,}."
        )
    index = np.frombuffer(body, _INDEX, chunks, start)
    bounds = (("length", _LONGEST_CHUNK), ("runs", MOST_RUNS), ("events", MOST_EVENTS), ("accesses", MOST_RUNS << 31))
    for key, most in bounds:
        if chunks and int(index[key].max()) > most:
            raise InputError(f"{where}: a chunk with {key} = {index[key].max()}: expected at most {most}.")
    try:
        regions = _regions(body[start + index.nbytes :], count)
    except ValueError as error:
        raise InputError(f"{where}: regions: {error}.") from error
    sums = {key: sum(index[key].tolist()) for key in ("accesses", "runs", "events")}
    sums["pages"] = int(regions[1].sum()) // PAGE
    return checked_totals(parsed(body[_FOOTER.size : start], where), sums, where), index, regions, offset


def _regions(frame: bytes, count: int) -> Regions:
    """Return the starts and lengths of regions; ValueError if they are not sorted, disjoint and canonical."""
    table = _decompress(frame, 2 * count, "<i8")
    starts, lengths = table[:count], table[count:]
    limit = WIDEST_END // PAGE
    if count and (int(lengths.min()) < 1 or int(lengths.max()) > 2 * limit or int(np.abs(starts).max()) > 2 * limit):
        raise ValueError("expected lengths above 0, in user space or the kernel's half")
    starts = np.cumsum(starts)
    if count and (int(starts[0]) < -limit or int(starts[-1] + lengths[-1]) > limit):
        raise ValueError("expected canonical addresses")
    if (starts[1:] <= starts[:-1] + lengths[:-1]).any():
        raise ValueError("expected them sorted, with gaps between them")
    starts *= PAGE
    return starts, lengths * PAGE


def _read_chunk(data: bytes, shift: int) -> Chunk:
    if len(data) < _CHUNK.size or not data.startswith(b"CHNK"):
        raise ValueError(f"expected b'CHNK', found {data[:4]!r}")
    _, runs, blocks, longs, events, *sizes = _CHUNK.unpack_from(data)
    if max(blocks, longs) > runs or events > MOST_EVENTS:
        raise ValueError(f"{blocks} new blocks, {longs} long counts and {events} events in {runs} runs are too many")
    if runs > MOST_RUNS or _CHUNK.size + sum(sizes) != len(data):
        raise ValueError(f"expected at most {MOST_RUNS} runs in columns of {len(data) - _CHUNK.size} bytes together")
    counts = {"rank": runs, "block": blocks, "kind": runs, "count": runs, "long": longs, "event": events}
    columns: list[NDArray[Any]] = []
    at = _CHUNK.size
    for name, size in zip(COLUMNS, sizes, strict=True):
        frame = data[at : at + size]
        at += size
        try:
            columns.append(_decompress(frame, counts[name], _ITEMS[name]))
        except ValueError as error:
            raise ValueError(f"column {name}: {error}") from error
    return decode(Columns(*columns), shift)
