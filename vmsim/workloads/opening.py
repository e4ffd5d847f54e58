"""Opening a trace, compressed or not, so that whatever goes wrong is an error that says what to do."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from vmsim.base.errors import InputError
from vmsim.base.files import open_regular, printable

__all__ = ["HEAD", "SUFFIXES", "first_lines", "head_of", "opened", "plain_name", "seekable", "shown"]

HEAD = 1 << 16  # bytes of a file that show its format
SUFFIXES = (".xz", ".gz", ".bz2", ".zst", ".zstd", ".lz4")
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MOST_UNPACKED = 1 << 28  # bytes of a compressed file that must be read in any order


def _arrow(codec: Literal["zstd", "lz4"]) -> Callable[[Any], Any]:
    def unpacked(file: Any) -> Any:
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(file, "r"), codec)

    return unpacked


_MAGIC: dict[bytes, Callable[[Any], Any]] = {
    b"\xfd7zXZ\0": lzma.open,
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\x28\xb5\x2f\xfd": _arrow("zstd"),
    b"\x04\x22\x4d\x18": _arrow("lz4"),
}
_ARCHIVES = {b"PK\x03\x04": "a ZIP archive", b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive"}


class _Guarded:
    """A file whose every failure to read is an InputError, and whose reads are never short before its end."""

    def __init__(self, file: Any, name: str, start: bytes = b"") -> None:
        self._file = file
        self._name = name
        self._start = start  # read already
        self._read = 0

    def read(self, size: int = -1) -> bytes:
        parts = [self._start if size < 0 else self._start[:size]]
        self._start = self._start[len(parts[0]) :]
        left = size - len(parts[0])
        try:
            while size < 0 or left > 0:
                part = self._file.read(left if size >= 0 else -1)
                if not part:
                    break
                parts.append(part)
                left -= len(part)
        except (EOFError, lzma.LZMAError, zlib.error, OSError, MemoryError) as error:
            raise InputError(
                f"{self._name}: cannot be read on after {self._read:,} bytes of its content ({error}): the compressed "
                "file is cut short or damaged."
            ) from error
        data = b"".join(parts)
        self._read += len(data)
        return data


@contextmanager
def opened(path: Path, *, text: bool = False) -> Iterator[BinaryIO]:
    """Open a file for reading; .xz, .gz, .bz2, .zst and .lz4 are recognized by their first bytes and decompressed.

    Parameters
    ----------
    path : Path
    text : bool
        Leave out a UTF-8 byte order mark.

    Raises
    ------
    InputError
        The file is missing, no ordinary file, empty, unreadable, cut short or damaged, an archive, or UTF-16 text.
    """
    name = printable(path)
    with open_regular(path, "trace") as file:
        head = file.read(8)
        file.seek(0)
        if not head:
            raise InputError(f"{name}: the file is empty: expected a trace.")
        archive = next((what for magic, what in _ARCHIVES.items() if head.startswith(magic)), None)
        if archive:
            raise InputError(f"{name}: this is {archive}: unpack it first.")
        opener = next((how for magic, how in _MAGIC.items() if head.startswith(magic)), None)
        inner = _Guarded(opener(file) if opener else file, name)
        if text:
            start = inner.read(len(_BOM))
            if start.startswith(_UTF16):
                raise InputError(f"{name}: this is UTF-16 text: expected UTF-8. Save it in that encoding first.")
            inner = _Guarded(inner, name, b"" if start == _BOM else start)
        yield cast(BinaryIO, inner)


@contextmanager
def seekable(path: Path) -> Iterator[BinaryIO]:
    """Open a file that must be read in any order; a compressed one is unpacked into a temporary file.

    Raises
    ------
    InputError
        As `opened`, or a compressed file holds more than 256 MiB.
    """
    with open_regular(path, "trace") as file:
        head = file.read(8)
        file.seek(0)
        if not any(head.startswith(magic) for magic in _MAGIC):
            yield file
            return
    with tempfile.SpooledTemporaryFile(max_size=1 << 24) as whole:
        with opened(path) as inner:
            while block := inner.read(1 << 20):
                if whole.tell() + len(block) > _MOST_UNPACKED:
                    raise InputError(
                        f"{printable(path)}: it holds more than {_MOST_UNPACKED >> 20} MiB when unpacked, and a file "
                        "of this format is read in any order: unpack it first."
                    )
                whole.write(block)
        whole.seek(0)
        yield cast(BinaryIO, whole)


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file's content, `HEAD` of them if it has so many; see `opened`."""
    with opened(path) as file:
        return file.read(HEAD)


def first_lines(head: bytes) -> list[bytes]:
    """Return the whole lines of a file's first bytes that are not blank, without their ends."""
    lines = head.removeprefix(_BOM).split(b"\n")
    if len(head) >= HEAD:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines if line.strip()]


def plain_name(path: Path) -> str:
    """Return a path's last part in lower case, without the suffix of a compressor."""
    name = path.name.lower()
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def shown(found: bytes, most: int = 60) -> str:
    """Return bytes as a quoted string on one line, cut after `most` of them."""
    text = repr(found[:most].decode("ascii", "backslashreplace"))
    return text if len(found) <= most else f"{text}…"
