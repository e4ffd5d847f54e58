"""Libraries read settings from the current folder, which may be somebody else's: have them not do so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["unread"]


@contextmanager
def unread(name: str) -> Iterator[None]:
    """Hide a file of the current folder from what is imported in the block.

    A library that looks for its settings asks `os.path.exists` first (numba for ``.numba_config.yaml``, matplotlib for
    ``matplotlibrc``). Settings choose what code is loaded from where, so those of a stranger's folder must not count.

    Parameters
    ----------
    name : str
        Name of the file, without a folder.
    """
    real = os.path.exists

    def exists(path: Any) -> bool:
        folder, last = os.path.split(os.fspath(path)) if isinstance(path, str | bytes | os.PathLike) else ("", "")
        if os.fsdecode(last) == name and os.path.realpath(os.fsdecode(folder) or ".") == os.path.realpath("."):
            return False
        return real(path)

    os.path.exists = exists
    try:
        yield
    finally:
        os.path.exists = real
