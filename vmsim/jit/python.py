"""Kernels that are not compiled: what numba makes of them where ``NUMBA_DISABLE_JIT`` is set, for looking inside."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.jit.silicon import Silicon

__all__ = [
    "caller_of",
    "kernel",
    "leaf",
    "opaque_core",
    "opaque_llc",
    "opaque_records",
    "overload",
    "prefetch",
    "resolved",
    "routine",
    "silicon",
    "target_of",
]

Function = Callable[..., Any]


def _same(what: Any) -> Any:
    return what


kernel = routine = leaf = opaque_core = opaque_llc = opaque_records = _same


def overload(generic: Function) -> None:
    """Do nothing: Python chooses."""


def resolved(kernel: Function, *_: Any) -> Function:
    """Return the kernel."""
    return kernel


def _core_of(cores: NDArray[Any]) -> np.record:
    return cores[0]  # type: ignore[no-any-return]


def _llc_of(cores: NDArray[Any], llc: NDArray[Any]) -> NDArray[Any]:
    return llc


def _words_of(cores: NDArray[Any]) -> NDArray[np.int64]:
    return cores.view(np.int64)


def _core_after(core: np.record, words: int) -> np.record:
    start = core.__array_interface__["data"][0] + 8 * int(words)
    room: Any = (ctypes.c_char * core.dtype.itemsize).from_address(start)
    return np.frombuffer(room, core.dtype).view(np.recarray)[0]  # type: ignore[no-any-return]


def silicon(header: np.dtype[Any], names: tuple[str, ...], keyed: int) -> Silicon:
    """Return that cores and LLCs are the records that they are."""
    return Silicon(_core_of, _llc_of, _words_of, prefetch, _core_after)


def target_of(routine: Function, *_: Any) -> Function:
    """Return the routine itself."""
    return routine


def caller_of(routine: Function) -> Function:
    """Return what calls a target."""

    def call(target: Function, *arguments: Any) -> Any:
        return target(*arguments)

    return call


def prefetch(*_: Any) -> None:
    """Fetch nothing: Python is slow for other reasons."""
