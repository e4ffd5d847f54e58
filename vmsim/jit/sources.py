"""Which files define what numba compiles, and their digest: all compiled results depend on it.

numba's own key of a kept result covers only the file that a function stands in: editing a helper elsewhere leaves its
cached callers unchanged and wrong.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

import llvmlite
import numba
import numpy

__all__ = ["jitted_sources", "source_digest", "stamp"]

_HERE: Final = Path(__file__).parent
_MARK: Final = b"vmsim.jit import"


@cache
def jitted_sources() -> tuple[Path, ...]:
    """Return the files of the package that define kernels, and all of `vmsim.jit`, sorted."""
    files = sorted(_HERE.parent.rglob("*.py"))
    return tuple(path for path in files if path.is_relative_to(_HERE) or _MARK in path.read_bytes())


@cache
def source_digest() -> str:
    """Return the SHA-256 of every jitted source; it changes whenever a compiled result could."""
    digest = hashlib.sha256()
    for path in jitted_sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def stamp() -> str:
    """Return what a compiled result depends on: all jitted sources, and the libraries that compile them."""
    return f"{source_digest()} {numba.__version__} {llvmlite.__version__} {numpy.__version__}"
