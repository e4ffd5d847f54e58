"""Where compiled kernels are kept, and what of it is believed.

A kept kernel is a pickle and machine code: anybody who can write it can run code. So kernels are kept in a folder of
the user's own, never in one that came with a scenario:

1. ``NUMBA_CACHE_DIR``, if it is set in the environment: the user's choice, which is not questioned;
2. ``$XDG_CACHE_HOME/vmsim`` or ``~/.cache/vmsim`` (macOS: ``~/Library/Caches/vmsim``), if it belongs to this user or to
   root and nobody else may write there;
3. else a temporary folder, gone with the process.

A folder that is read-only will do as long as it has what is needed. Each file begins with the SHA-256 of the rest: one
that is cut or damaged is removed and made again.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from vmsim.base.errors import InputError
from vmsim.base.files import printable, read_bytes, replacing

__all__ = ["discard", "folder_of", "keep", "kept", "root"]

VARIABLE: Final = "NUMBA_CACHE_DIR"
_MARK: Final = b"vmsim kernel 1\n"
_HEAD: Final = len(_MARK) + hashlib.sha256().digest_size
_LARGEST: Final = 1 << 30
_told: set[str] = set()


@cache
def root() -> Path | None:
    """Return the folder that kernels are kept in, made if need be; None if there is no place at all."""
    wanted = os.environ.get(VARIABLE)
    path = Path(wanted).absolute() if wanted else _users()
    if path is None:
        return _temporary("This user has no home folder")
    problem = _made(path) or (None if wanted else _distrusted(path))
    return path if problem is None else _temporary(f"{printable(path)} cannot be used: {problem}")


def folder_of(source: str | Path) -> Path | None:
    """Return the folder for what is compiled from a source file; each installation of vmsim has its own."""
    above = root()
    if above is None:
        return None
    folder = os.path.dirname(os.path.abspath(source))
    return above / f"{os.path.basename(folder)}_{hashlib.sha1(os.fsencode(folder), usedforsecurity=False).hexdigest()}"


def kept(path: Path) -> bytes | None:
    """Return what was kept in a file; None if it is not there. One that is damaged is removed."""
    try:
        data = read_bytes(path, "kept kernel", limit=_LARGEST)
    except InputError:
        return None
    if data.startswith(_MARK) and hashlib.sha256(data[_HEAD:]).digest() == data[len(_MARK) : _HEAD]:
        return data[_HEAD:]
    discard(path)
    return None


def keep(path: Path, data: bytes) -> None:
    """Keep something in a file, or say once that nothing can be kept."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(_MARK + hashlib.sha256(data).digest() + data)
    except (OSError, InputError) as error:
        reason = getattr(error, "strerror", None) or getattr(error.__cause__, "strerror", None) or str(error)
        _tell(
            f"compiled kernels cannot be kept in {printable(path.parent)} ({reason}), so each run compiles anew what "
            f"it needs. {VARIABLE} can name a folder for them."
        )


def discard(path: Path) -> None:
    """Remove a file that is of no use."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # read-only: it is passed over each time
        return


def _users() -> Path | None:
    """Return the user's own cache folder, if the user has a place for one."""
    wanted = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(wanted):
        return Path(wanted, "vmsim")
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        return None
    return Path(home, "Library/Caches/vmsim" if sys.platform == "darwin" else ".cache/vmsim")


def _made(path: Path) -> str | None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.scandir(path).close()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def _distrusted(path: Path) -> str | None:
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0):
        return "it belongs to another user"
    if status.st_mode & 0o022:
        return "others may write to it (chmod go-w)"
    return None


def _temporary(problem: str) -> Path | None:
    try:
        path = Path(tempfile.mkdtemp(prefix="vmsim-kernels-"))
    except OSError:
        _tell(f"{problem}, and there is no temporary folder: compiled kernels are not kept.")
        return None
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(path, ignore_errors=True) if os.getpid() == owner else None)
    os.environ[VARIABLE] = str(path)  # for processes that this one starts
    _tell(
        f"{problem}. Compiled kernels are kept for this run only, and the next one compiles them anew. {VARIABLE} can "
        "name a folder for them."
    )
    return path


def _tell(text: str) -> None:
    """Say something once."""
    if not _told and sys.stderr is not None:
        print(f"vmsim: {text}", file=sys.stderr)
    _told.add(text)
