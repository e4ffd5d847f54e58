"""One writer for a folder: the others are refused, and a dead one is in nobody's way."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from vmsim.base.errors import InputError
from vmsim.base.files import printable

__all__ = ["locked"]

_HELD: Final = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_UNKNOWN: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def locked(path: Path, *, lock: bool = True) -> Iterator[None]:
    """Hold a lock file while the block runs.

    The kernel drops a lock with the process that had it, so nothing is left to clear away after a crash. A file that
    names another host is believed, for locks do not reach across every network file system.

    Parameters
    ----------
    path : Path
        The lock file.
    lock : bool, optional
        False: hold none, as the user has asked for.

    Raises
    ------
    InputError
        Another process has it, the file system has no locks, or the folder cannot be written.
    """
    if not lock:
        yield
        return
    file = _taken(path)
    try:
        yield
    finally:
        with suppress(OSError):  # what is left is a file that nobody holds
            path.unlink(missing_ok=True)
        os.close(file)


def _taken(path: Path) -> int:
    folder = printable(path.parent)
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror or error}.") from error
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise InputError(f"{printable(path)}: this is no ordinary file; expected the lock of a sweep.")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(file, path):
                _claim(file, path)
                return file
        except OSError as error:
            holder = _holder(file)
            if error.errno not in _HELD and not holder:
                with suppress(OSError):  # we have made it
                    path.unlink()
            os.close(file)
            raise InputError(f"{folder}: {_refusal(error, holder)}") from error
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its holder removed the file between our opening and locking it: again


def _refusal(error: OSError, holder: dict[str, Any]) -> str:
    if error.errno in _HELD:
        return (
            f"another sweep writes here (process {holder.get('pid', '?')} on {holder.get('host', 'this host')}). Wait "
            "for it, stop it, or name another folder with --out."
        )
    told = error.strerror or str(error)
    if error.errno in _UNKNOWN:
        return (
            f"the file system has no locks here ({told}), so two sweeps could write at once. Name a folder on another "
            "one with --out; or, if nothing else writes here, give --no-lock."
        )
    return f"cannot be locked: {told}."


def _claim(file: int, path: Path) -> None:
    holder, here = _holder(file), socket.gethostname()
    if holder and holder.get("host") != here:
        raise InputError(
            f"{printable(path.parent)}: a sweep on the host {holder.get('host')} (process {holder.get('pid')}) writes "
            f"here, or was killed there. If it no longer runs, remove {printable(path)} and start again."
        )
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps({"pid": os.getpid(), "host": here}).encode(), 0)


def _holder(file: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(file, 1000, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _is(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
