"""Hidden names beside what is being written: whose they are, and what killed processes left under them.

A process that is killed cannot remove its half-written files. Their names have its number, and it holds a lock on each
(flock), which the kernel drops with it. So what has the number of no living process and no lock is nobody's. Both are
asked for: numbers are used again, and differ between containers that share a folder; locks do not work on every file
system, and there what was left stays.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["beside", "held", "leftovers"]

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def beside(path: Path, suffix: str) -> Path:
    """Return a hidden name of this process beside a path: not longer than 255 bytes, as file systems have it."""
    return path.with_name(f".{_stem(path)}.{os.getpid()}.{suffix}")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Lock a file or folder that is there while the block runs, where there are locks."""
    descriptor = -1
    try:
        with suppress(OSError):  # no locks there: leftovers are then known by the process in their name alone
            descriptor = os.open(path, _FLAGS)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def leftovers(path: Path, suffix: str) -> list[Path]:
    """Return the files and folders beside a path that have a name by `beside` and are nobody's any more."""
    pattern = re.compile(rf"\.{re.escape(_stem(path))}\.([0-9]{{1,10}})\.{suffix}", re.ASCII)
    try:
        found = [(name, pattern.fullmatch(name)) for name in os.listdir(path.parent)]
    except (OSError, ValueError):
        return []
    return [path.with_name(name) for name, match in found if match and _is_nobodys(path.with_name(name), int(match[1]))]


def _stem(path: Path) -> str:
    return path.name if len(os.fsencode(path.name)) <= 230 else os.fsdecode(os.fsencode(path.name)[:200])


def _is_nobodys(path: Path, number: int) -> bool:
    if number != os.getpid() and _lives(number):  # ours: of a process that had our number before, unless it is locked
        return False
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError:
        return False
    try:
        kind = os.fstat(descriptor).st_mode
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return stat.S_ISREG(kind) or stat.S_ISDIR(kind)


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True
