"""Opening a trace, compressed or not, so that whatever goes wrong is told as the user's to mend."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from vmsim.errors import InputError

__all__ = ["SUFFIXES", "opened", "plain_name", "shown"]

SUFFIXES = (".xz", ".gz", ".bz2")
_MAGIC: dict[bytes, Callable[[BinaryIO, str], Any]] = {
    b"\xfd7zXZ\0": lzma.open,
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
}


class _Guarded:
    """A file whose every failure to read is an InputError."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self._read = 0

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._file.read(size)
        except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
            raise InputError(
                f"{self._path}: cannot be read on after {self._read} bytes of its content ({error}): the file is cut "
                "short or damaged."
            ) from error
        self._read += len(data)
        return data


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; .xz, .gz and .bz2 are recognized by their first bytes and decompressed.

    Raises
    ------
    InputError
        The file is missing, unreadable, cut short or damaged.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
    with file:
        try:
            head = file.read(6)
            file.seek(0)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
        opener = next((how for magic, how in _MAGIC.items() if head.startswith(magic)), None)
        inner = opener(file, "rb") if opener else file
        yield cast(BinaryIO, _Guarded(inner, path))


def plain_name(path: Path) -> str:
    """Return a path's last part in lower case, without the suffix of a compressor."""
    name = path.name.lower()
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def shown(found: bytes, most: int = 60) -> str:
    """Return bytes as a quoted string on one line, cut after `most` of them."""
    text = repr(found[:most].decode("ascii", "backslashreplace"))
    return text if len(found) <= most else f"{text}…"
