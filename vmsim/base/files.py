"""Files that are either complete or absent, and files of other people that are opened without trusting them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from vmsim.base.errors import InputError
from vmsim.base.formats import FIGURE_FORMATS
from vmsim.base.temporary import beside, held, leftovers

__all__ = [
    "open_regular",
    "printable",
    "read_bytes",
    "read_text",
    "refuse_figure",
    "refuse_overwrite",
    "replacing",
    "sha256",
]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_LONGEST_NAME = 200  # characters of a path that a message shows
TEXT_LIMIT = 16 << 20  # bytes: what a person writes is far smaller


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path as one line for a message: shortened in the middle, and bytes that are no text as escapes."""
    text = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
    if len(text) <= _LONGEST_NAME:
        return text
    return f"{text[: _LONGEST_NAME // 2]}…{text[-_LONGEST_NAME // 2 :]}"


def open_regular(
    path: str | os.PathLike[str], what: str = "file", *, limit: int | None = None, links: bool = True
) -> BinaryIO:
    """Open an ordinary file for reading: nothing that can block, never ends or is not a file.

    Parameters
    ----------
    path : path
    what : str
        What the file is to be, for messages ("scenario", "CPU file", "trace").
    limit : int, optional
        Bytes that the file may have at most.
    links : bool, optional
        Follow `path` if it is a link.

    Returns
    -------
    binary file
        Its `read` raises InputError where the disk or the file system fails, and gives no byte after the size that the
        file had when it was opened.

    Raises
    ------
    InputError
        There is no such file, its name is too long or no name at all, it may not be read, it is a folder, pipe,
        device, socket or one of the kernel's pseudo-files, or it is larger than `limit`.
    """
    name = printable(path)
    try:
        # without O_NONBLOCK, opening a pipe waits for somebody to write
        flags = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
        descriptor = os.open(path, flags if links else flags | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such {what}.") from error
    except OSError as error:
        if not links and error.errno == errno.ELOOP:
            raise InputError(f"{name}: this is a link to elsewhere; expected a {what}: an ordinary file.") from error
        raise InputError(f"{name}: this {what} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{name}: this {what} cannot be read: {error}.") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            found = next((word for test, word in _KINDS if test(status.st_mode)), "something else")
            raise InputError(f"{name}: this is {found}; expected a {what}: an ordinary file.")
        if status.st_dev in _pseudo():
            raise InputError(f"{name}: this is a pseudo-file of the kernel; expected a {what}: an ordinary file.")
        if limit is not None and status.st_size > limit:
            raise InputError(f"{name}: this {what} has {status.st_size:,} bytes: expected at most {limit:,}.")
    except BaseException:
        os.close(descriptor)
        raise
    return cast(BinaryIO, _Bounded(os.fdopen(descriptor, "rb"), name, what, status.st_size))


def read_bytes(
    path: str | os.PathLike[str], what: str = "file", *, limit: int = TEXT_LIMIT, links: bool = True
) -> bytes:
    """Return all bytes of an ordinary file of at most `limit` bytes; see `open_regular` for what is refused."""
    with open_regular(path, what, limit=limit, links=links) as file:
        return file.read()


def read_text(path: str | os.PathLike[str], what: str = "file", *, limit: int = TEXT_LIMIT) -> str:
    """Return the text of an ordinary UTF-8 file (a byte order mark is left out); see `open_regular`.

    Raises
    ------
    InputError
        Also where the bytes are not UTF-8; the message has the first wrong one's place.
    """
    data = read_bytes(path, what, limit=limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{printable(path)}: this {what} is not UTF-8 text (byte {error.start}).") from error


def _pseudo() -> set[int]:
    """Return the device numbers of /proc and /sys, whose files have no size and may wait for ever."""
    found = set()
    for folder in ("/proc", "/sys"):
        try:
            found.add(os.stat(folder).st_dev)
        except OSError:  # another operating system, or a container without them
            continue
    return found - {os.stat("/").st_dev}


class _Bounded:
    """A binary file that ends where it ended when it was opened, and whose failures are InputErrors."""

    def __init__(self, file: IO[bytes], name: str, what: str, size: int) -> None:
        self._file = file
        self._name = name
        self._what = what
        self._size = size
        self._at = 0

    def read(self, size: int | None = -1) -> bytes:
        room = max(0, self._size - self._at)
        try:
            data = self._file.read(room if size is None or size < 0 else min(size, room)) or b""
        except OSError as error:
            raise InputError(
                f"{self._name}: this {self._what} cannot be read on after {self._at:,} bytes: "
                f"{error.strerror or error}."
            ) from error
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset, whence = offset + self._size, os.SEEK_SET
        self._at = self._file.seek(offset, whence)
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._file.fileno()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> _Bounded:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()


def refuse_overwrite(path: Path, *, force: bool) -> None:
    """Refuse to write to `path` if something is there that may not be replaced; to be asked before long work.

    Raises
    ------
    InputError
        It is there and `force` is false, or it is no ordinary file (a folder, a device).
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise InputError(
            f"{printable(path)}: cannot be written: {getattr(error, 'strerror', None) or error}. Nothing was left "
            "there."
        ) from error
    if not stat.S_ISREG(status.st_mode):
        found = next((word for test, word in _KINDS if test(status.st_mode)), "something else")
        raise InputError(f"{printable(path)}: this is {found}; expected the name of a file to write.")
    if not force:
        raise InputError(f"{printable(path)}: this file exists. Give --force to replace it, or choose another name.")


def refuse_figure(path: Path, *, force: bool) -> None:
    """Refuse to draw to `path`, as `refuse_overwrite` does, or for a suffix that is of no format; before long work.

    Raises
    ------
    InputError
        See there; or the name ends in something else than `FIGURE_FORMATS`.
    """
    if path.suffix not in FIGURE_FORMATS:
        raise InputError(f"{printable(path)}: expected a name that ends in {', '.join(FIGURE_FORMATS)}.")
    refuse_overwrite(path, force=force)


@contextmanager
def replacing(path: Path, *, force: bool = True, clear: bool = True) -> Iterator[Path]:
    """Give a temporary file beside `path`; rename it to `path` when the block ends well, else remove it.

    Parameters
    ----------
    path : Path
        If it is a link to a file, that file is replaced and the link stays.
    force : bool
        Replace a file that is there. If false, it is refused, and a file that appears meanwhile is kept.
    clear : bool
        Remove first what processes that were killed left of such temporary files. False where the folder is cleared as
        a whole.

    Raises
    ------
    InputError
        The folder is missing or read-only, the name is too long, the disk is full, `path` is something other than an
        ordinary file, or it is there and `force` is false.
    """
    refuse_overwrite(path, force=force)
    temporary = path
    try:
        target = path.resolve() if path.is_symlink() else path
        for each in leftovers(target, "tmp") if clear else ():
            each.unlink()
        temporary = beside(target, "tmp")
        temporary.touch()
        with held(temporary):
            yield temporary
            if force:
                os.replace(temporary, target)
            else:
                _put(temporary, target)
    except OSError as error:
        raise InputError(
            f"{printable(path)}: cannot be written: {error.strerror or error}. Nothing was left there."
        ) from error
    finally:
        if temporary != path:
            with suppress(OSError):  # what is told is why it could not be written; the next writer removes what is left
                temporary.unlink(missing_ok=True)


def _put(temporary: Path, target: Path) -> None:
    """Rename, but never over a file that is there: a link is made in one step or not at all."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        refuse_overwrite(target, force=False)
    except OSError:  # a file system without hard links
        refuse_overwrite(target, force=False)
        os.replace(temporary, target)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
