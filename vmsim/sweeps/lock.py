"""One writer for a folder: the others are refused, and a dead one is in nobody's way."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vmsim.errors import InputError

__all__ = ["locked"]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs.

    The kernel drops a lock with the process that had it, so nothing is left to clear away after a crash. A file that
    names another host is believed, for locks do not reach across every network file system.

    Raises
    ------
    InputError
        Another process has it, or the folder cannot be written.
    """
    file = _taken(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _taken(path: Path) -> int:
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise InputError(f"{path.parent}: cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(file, path):
                _claim(file, path)
                return file
        except BlockingIOError:
            holder = _holder(file)
            os.close(file)
            raise InputError(
                f"{path.parent}: another sweep writes here (process {holder.get('pid', '?')} on "
                f"{holder.get('host', 'this host')}). Wait for it, stop it, or name another folder with --out."
            ) from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its holder removed the file between our opening and locking it: again


def _claim(file: int, path: Path) -> None:
    holder, here = _holder(file), socket.gethostname()
    if holder and holder.get("host") != here:
        raise InputError(
            f"{path.parent}: a sweep on the host {holder.get('host')} (process {holder.get('pid')}) writes here, or "
            f"was killed there. If it no longer runs, remove {path} and start again."
        )
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps({"pid": os.getpid(), "host": here}).encode(), 0)


def _holder(file: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(file, 1000, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _is(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
