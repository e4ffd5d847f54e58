"""Which files define what numba compiles, and their digest: all compiled results depend on it.

numba's own key of a kept result covers only the file that a function stands in: editing a helper elsewhere leaves its
cached callers unchanged and wrong. A kept kernel therefore depends on its file, on all that this imports, on
`vmsim.jit`, and on the files that implement an overloaded function for the types of its arguments.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

import llvmlite
import numba
import numpy

__all__ = ["generics", "implementations", "jitted_sources", "source_digest", "sources_of", "stamp", "stamp_of"]

_HERE: Final = Path(__file__).parent
_MARK: Final = b"vmsim.jit import"
_FROM: Final = re.compile(rb"^[ \t]*from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n#]*)", re.MULTILINE)
_IMPORT: Final = re.compile(rb"^[ \t]*import[ \t]+([\w.]+)", re.MULTILINE)
_WORD: Final = re.compile(rb"\w+")

generics: Final[list[Any]] = []  # the functions that `vmsim.jit.overloaded` made


@cache
def jitted_sources() -> tuple[Path, ...]:
    """Return the files of the package that define kernels, and all of `vmsim.jit`, sorted."""
    files = sorted(_HERE.parent.rglob("*.py"))
    return tuple(path for path in files if path.is_relative_to(_HERE) or _MARK in _text(path))


@cache
def source_digest() -> str:
    """Return the SHA-256 of every jitted source; it changes whenever a compiled result could."""
    return _digest(jitted_sources())


def stamp() -> str:
    """Return what any compiled result depends on: all jitted sources, and the libraries that compile them."""
    return f"{source_digest()} {_libraries()}"


def stamp_of(function: Callable[..., Any]) -> str:
    """Return what each compiled result of a function depends on: the files that its own needs, and the libraries."""
    return f"{_digest(_sources_of(function))} {_libraries()}"


def implementations(signature: tuple[Any, ...]) -> str:
    """Return a digest of the files that implement overloaded functions for a signature, a tuple of numba's types."""
    chosen = {
        generic.registry[kind] for kind in _classes(signature) for generic in generics if kind in generic.registry
    }
    return _digest(tuple(sorted({file for function in chosen for file in _sources_of(function)})))


def _classes(types: Iterable[Any]) -> Iterator[type]:
    """Return the NamedTuples among numba's types, and within them."""
    for kind in types:
        if hasattr(kind, "instance_class"):
            yield kind.instance_class
        if hasattr(kind, "types"):
            yield from _classes(kind.types)


def _sources_of(function: Any) -> tuple[Path, ...]:
    code = getattr(function, "py_func", function).__code__
    return sources_of(Path(code.co_filename), function.__module__.partition(".")[0])


@cache
def sources_of(path: Path, package: str = "vmsim") -> tuple[Path, ...]:
    """Return the files that what is compiled from a file depends on, sorted.

    Of all that it imports, and that these import in turn, the files that define kernels or that such files import: a
    kernel's constants are there.

    Parameters
    ----------
    path : Path
        A file that defines kernels.
    package : str
        The top-level package of which it is; its files and vmsim's are looked at.
    """
    found, left = {path, *_own()}, [path]
    seen = {path}
    while left:
        file = left.pop()
        imported = _imports(file, package)
        if _MARK in _text(file):
            found |= {file, *imported}
        left += imported - seen
        seen |= imported
    return tuple(sorted(found))


@cache
def _own() -> tuple[Path, ...]:
    return tuple(_HERE.rglob("*.py"))


@cache
def _imports(path: Path, package: str) -> frozenset[Path]:
    """Return the files of a package and of vmsim that a file imports, whatever for."""
    text = _text(path)
    names = [match[1] for match in _IMPORT.finditer(text)]
    for match in _FROM.finditer(text):
        names += [match[1], *(match[1] + b"." + name for name in _WORD.findall(match[2]))]
    return frozenset(file for name in names for file in _files(name.decode(), package))


@cache
def _files(name: str, package: str) -> tuple[Path, ...]:
    top, *rest = name.split(".")
    if top not in ("vmsim", package) or not (root := getattr(sys.modules.get(top), "__file__", None)):
        return ()
    place = Path(root).parent.joinpath(*rest)
    return tuple(file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())


@cache
def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # a notebook's cell, or a line of the shell's: numba's own key has the function's code
        return b""


@cache
def _digest(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(_text(path))
    return digest.hexdigest()


def _libraries() -> str:
    return f"{numba.__version__} {llvmlite.__version__} {numpy.__version__}"
