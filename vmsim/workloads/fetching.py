"""Traces that lie elsewhere: fetched once, checked, and kept.

A trace may be named by a URL with its SHA-256, as pip names files: ``https://example.org/db.vmtrace#sha256=…``. Without
the hash it is refused: a result would depend on what somebody's server has today.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from vmsim.base.errors import InputError
from vmsim.base.files import printable, replacing
from vmsim.base.progress import progress_bar

__all__ = ["cache", "fetched", "is_url"]

_URL: Final = re.compile(r"(https?|file):/+", re.IGNORECASE)
_SHA: Final = re.compile(r"sha256=([0-9a-f]{64})", re.IGNORECASE)
_BLOCK: Final = 1 << 18
_PATIENCE: Final = 60  # seconds without a byte


def is_url(path: str) -> bool:
    """Return whether a trace is named by a URL."""
    return _URL.match(path) is not None


def cache() -> Path:
    """Return the folder of traces that were fetched: ``$XDG_CACHE_HOME/vmsim/traces``, ``~/.cache/vmsim/traces``."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "vmsim" / "traces"


def fetched(url: str) -> Path:
    """Return where the trace of a URL is; it is fetched if it is not there yet.

    Parameters
    ----------
    url : str
        http, https or file, with ``#sha256=`` and the file's SHA-256 in hexadecimal.

    Raises
    ------
    InputError
        There is no hash, the file cannot be fetched, or it is another one. Nothing is kept then.
    """
    plain, _, fragment = url.partition("#")
    plain = _mended(plain)
    match = _SHA.fullmatch(fragment)
    if not match:
        raise InputError(
            f"{printable(url)}: a trace from elsewhere needs its SHA-256, so that the same scenario has the same "
            "result: expected URL#sha256= and 64 hexadecimal digits, as sha256sum prints them."
        )
    digest = match[1].lower()
    name = PurePosixPath(unquote(urlsplit(plain).path)).name
    if not name or "\0" in name or len(name.encode()) > 200:
        raise InputError(f"{printable(url)}: expected a URL that ends in the name of a file.")
    path = cache() / digest / name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{printable(path.parent)}: cannot be made: {error.strerror or error}.") from error
    with _answer(plain) as answer, replacing(path) as temporary:
        found = _copy(answer, temporary, name)
        if found != digest:
            raise InputError(
                f"{printable(plain)}: its SHA-256 is {found}, expected {digest}: the file there is another one. "
                "Nothing was kept."
            )
    return path


def _copy(answer: Any, target: Path, name: str) -> str:
    """Write what is read to a file; return its SHA-256."""
    total = int(answer.headers.get("Content-Length") or 0)
    sha, done = hashlib.sha256(), 0
    with target.open("wb") as file, progress_bar("fetching", "bytes") as show:
        while block := answer.read(_BLOCK):
            file.write(block)
            sha.update(block)
            done += len(block)
            if show:
                show(name, done, total)
    if total and done < total:
        raise InputError(f"{name}: the connection ended after {done:,} of {total:,} bytes. Nothing was kept.")
    return sha.hexdigest()


@contextmanager
def _answer(url: str) -> Iterator[Any]:
    """Open a URL.

    Raises
    ------
    InputError
        It cannot be read, or not to its end.
    """
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=_PATIENCE) as answer:
            yield answer
    except HTTPError as error:
        raise InputError(
            f"{printable(url)}: cannot be fetched: the server says {error.code} {error.reason}."
        ) from error
    except (URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{printable(url)}: cannot be fetched: {reason}.") from error


def _mended(url: str) -> str:
    """Return a URL with the slashes that a path on the command line has lost."""
    scheme, _, rest = url.partition(":")
    rest = rest.lstrip("/")
    return f"{scheme}:///{rest}" if scheme.lower() == "file" else f"{scheme}://{rest}"
