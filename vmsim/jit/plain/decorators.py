"""The three strengths of numba's decorator, and calls of a vCPU's run, which is the same for all geometries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

import numba
import numpy as np
from numba.extending import overload as numba_overload
from numba.extending import register_jitable
from numpy.typing import NDArray

from vmsim.jit.kernel_cache import keep, kept, root
from vmsim.jit.sources import stamp

__all__ = [
    "caller_of",
    "kernel",
    "leaf",
    "opaque_core",
    "opaque_llc",
    "opaque_records",
    "overload",
    "resolved",
    "routine",
    "target_of",
]

Function = Callable[..., Any]

# No reference counts (see the fast decorators): the manual of `register_jitable` has the option.
_OPTIONS: Final[dict[str, Any]] = {"nogil": True, "error_model": "numpy", "_nrt": False}


@cache
def _folder() -> Path | None:
    """Return the folder for what is compiled from these sources alone; None if nothing can be kept, which then is said.

    numba's own key of a kept result covers but one file, so the folder's name has the digest of all of them. numba
    would keep it beside the sources where it cannot write to the folder, so that is tried first.
    """
    above = root()
    if above is None:
        return None
    folder = above / f"plain-{sha256(stamp().encode()).hexdigest()[:16]}"
    keep(folder / "stamp", stamp().encode())
    return folder if kept(folder / "stamp") and os.access(folder, os.W_OK) else None


@contextmanager
def _kept() -> Iterator[bool]:
    """Have numba keep what is decorated now there; False if it cannot."""
    folder = _folder()
    if folder is None:
        yield False
        return
    settings: Any = numba.config
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(folder)
    try:
        yield True
    finally:
        settings.CACHE_DIR = before


def kernel(function: Function) -> Function:
    """Compile a function that Python calls."""
    with _kept() as cached:
        return numba.njit(**_OPTIONS, cache=cached)(function)  # type: ignore[no-any-return]


def routine(function: Function) -> Function:
    """Compile a function that kernels call."""
    return register_jitable(**_OPTIONS, forceinline=False)(function)


def leaf(function: Function) -> Function:
    """Compile a function into what calls it."""
    return register_jitable(**_OPTIONS, forceinline=True)(function)


def overload(generic: Any) -> None:
    """Have compiled code choose among the implementations of a function as Python does."""
    options: Any = _OPTIONS

    @numba_overload(generic, jit_options=options, strict=False)
    def choose(first: Any, *_: Any) -> Any:
        return generic.dispatch(first.instance_class)


def resolved(kernel: Function, *_: Any) -> Function:
    """Return the kernel: what it is compiled for, it finds out itself."""
    return kernel


def opaque_core(core: NDArray[Any]) -> NDArray[np.int64]:
    """Return the words of a core, int64[words]."""
    return core.view(np.int64)


def opaque_llc(llc: NDArray[Any]) -> NDArray[np.int64]:
    """Return the words of an LLC, int64[words]."""
    return llc.view(np.int64)


def opaque_records(records: NDArray[Any]) -> NDArray[Any]:
    """Return records as they are: what calls a routine is compiled with it, and for each of their types."""
    return records


def target_of(*_: Any) -> int:
    """Return nothing of importance: callers know what they call."""
    return 0


def caller_of(routine: Function) -> Function:
    """Return a call of the routine."""

    def call(target: int, *arguments: Any) -> Any:
        return routine(*arguments)

    return leaf(call)
