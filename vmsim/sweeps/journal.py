"""The journal of a generation: finished points, appended as they come, kept until their part is written.

A frame is its length, the CRC-32 of what follows, the point's place in the plan, and JSON. Appending is all that is
ever done to a journal, so a driver that dies leaves at worst a torn last frame, which the next one cuts off.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from vmsim.base.errors import InputError
from vmsim.base.files import printable

__all__ = ["HEADER", "JOURNAL", "Journal"]

JOURNAL: Final = "journal"

HEADER: Final = -1
"""Place of the first frame, which says what the journal is of."""

_FRAME: Final = struct.Struct("<IIq")
_LONGEST: Final = 1 << 26
_KINDS: Final = ("str", "int64", "float64", "bool")


class Journal:
    """A file of frames.

    Parameters
    ----------
    path : Path
        Opened, or begun if it is not there.
    header : dict, optional
        Of a new journal, as JSON types.
    reading : bool, optional
        Only read, as who has no lock must.

    Attributes
    ----------
    header : dict
        What the journal is of.
    """

    def __init__(self, path: Path, header: dict[str, Any] | None = None, *, reading: bool = False) -> None:
        self.path = path
        self._reading = reading
        flags = os.O_RDONLY if reading else os.O_RDWR | os.O_APPEND
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if header is not None else 0)
        self._file = os.open(path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise InputError(f"{printable(path)}: this is no ordinary file; expected the journal of a sweep.")
            if header is not None:
                os.ftruncate(self._file, 0)
                self._end = 0
                self.append([(HEADER, header)])
                self.sync()
                self.header = header
            else:
                self._end = os.fstat(self._file).st_size
                self.header = self._begun()
        except BaseException:
            os.close(self._file)
            raise

    @classmethod
    def opened(cls, path: Path, *, reading: bool = False) -> Self | None:
        """Open a journal, or return None if there is none that has a header.

        Raises
        ------
        InputError
            It cannot be read, or is no ordinary file.
        """
        try:
            return cls(path, reading=reading)
        except InputError:
            raise
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise InputError(f"{printable(path)}: cannot be read: {error.strerror or error}.") from error

    @property
    def generation(self) -> int:
        """Of the points that it has."""
        return int(self.header["generation"])

    @property
    def is_empty(self) -> bool:
        """Whether it has no point yet."""
        return next(self.scan(), None) is None

    def append(self, records: list[tuple[int, Any]]) -> list[int]:
        """Add records of (place, JSON types); return where each begins.

        Raises
        ------
        InputError
            The disk is full, for example. Nothing is added then.
        """
        frames, starts = [], []
        at = self._end
        for place, record in records:
            body = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
            rest = struct.pack("<q", place) + body
            frames.append(_FRAME.pack(len(body), zlib.crc32(rest), place) + body)
            starts.append(at)
            at += len(frames[-1])
        try:
            _write(self._file, b"".join(frames))
        except OSError as error:
            with suppress(OSError):  # else what is torn is cut off when it is read
                os.ftruncate(self._file, self._end)
            raise self._unwritten(error) from error
        self._end = at
        return starts

    def sync(self) -> None:
        """Make what was added safe from a loss of power.

        Raises
        ------
        InputError
            The disk fails, for example.
        """
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._unwritten(error) from error

    def scan(self) -> Iterator[tuple[int, int]]:
        """Yield the place and the beginning of every whole record; cut off what is torn, unless only reading."""
        at = 0
        while (frame := self._frame(at)) is not None:
            place, body = frame
            if 0 <= place < self.header["points"]:
                yield place, at
            at += _FRAME.size + len(body)
        if at < self._end and not self._reading:
            try:
                os.ftruncate(self._file, at)
            except OSError as error:
                raise self._unwritten(error) from error
            self._end = at

    def read(self, start: int) -> Any:
        """Return the record that begins at `start`."""
        frame = self._frame(start)
        try:
            if frame is not None:
                return json.loads(frame[1])
        except (ValueError, RecursionError) as error:
            raise InputError(f"{printable(self.path)}: damaged at byte {start}: {error}.") from error
        raise InputError(f"{printable(self.path)}: damaged at byte {start}.")

    def record(self, start: int) -> tuple[list[Any], Any]:
        """Return the first columns of a point's rows, and the rest: rows, or a failure as text."""
        match self.read(start):
            case [[str(), int(), int(), *_] as prefix, str() | [*_] as made] if all(
                isinstance(row, list) for row in made if not isinstance(made, str)
            ):
                return prefix, made
        raise InputError(f"{printable(self.path)}: damaged at byte {start}.")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _begun(self) -> dict[str, Any]:
        frame = self._frame(0)
        try:
            header: Any = json.loads(frame[1]) if frame is not None and frame[0] == HEADER else None
        except RecursionError as error:
            raise ValueError("no header") from error
        match header:
            case {
                "generation": int(generation),
                "plan": str(),
                "points": int(points),
                "part": int(part),
                "columns": {"point": "str", "replicate": "int64", "seed": "int64", **others},
                "facts": dict(),
            } if (
                0 < generation < 10_000
                and 0 < points < 1 << 32
                and points <= part * 1_000_000
                and all(kind in _KINDS for kind in others.values())
                and not any(type(number) is bool for number in (generation, points, part))
            ):
                return dict(header)
        raise ValueError("no header")

    def _frame(self, at: int) -> tuple[int, bytes] | None:
        try:
            head = os.pread(self._file, _FRAME.size, at)
            if len(head) < _FRAME.size:
                return None
            length, crc, place = _FRAME.unpack(head)
            if length > _LONGEST:
                return None
            body = os.pread(self._file, length, at + _FRAME.size)
        except OSError as error:
            raise InputError(f"{printable(self.path)}: cannot be read: {error.strerror or error}.") from error
        whole = len(body) == length and zlib.crc32(struct.pack("<q", place) + body) == crc
        return (place, body) if whole else None

    def _unwritten(self, error: OSError) -> InputError:
        name = printable(self.path)
        return InputError(f"{name}: cannot be written: {error.strerror or error}. Nothing that was recorded is lost.")


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
