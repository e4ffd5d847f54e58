"""numba as this package uses it, and everything that touches numba's insides.

Three strengths of one decorator, and what a core's silicon is to compiled code; see `vmsim.jit.way` for how they come
about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vmsim.jit.silicon import Silicon
from vmsim.jit.sources import generics, jitted_sources, source_digest
from vmsim.jit.way import select

__all__ = [
    "WAY",
    "Silicon",
    "caller_of",
    "jitted_sources",
    "kernel",
    "leaf",
    "of_one_type",
    "opaque_core",
    "opaque_llc",
    "opaque_records",
    "overloaded",
    "prefetch",
    "resolved",
    "routine",
    "silicon",
    "source_digest",
    "target_of",
]

Function = Callable[..., Any]

_name, _way = select()

WAY: Final = _name


def kernel(function: Function) -> Function:
    """Compile `function` on first call; keep the result on disk."""
    return _way.kernel(function)  # type: ignore[no-any-return]


def routine(function: Function) -> Function:
    """Compile `function` once into each kernel that calls it, as a call: for what is long, or seldom needed.

    Called from Python, it runs as Python.
    """
    return _way.routine(function)  # type: ignore[no-any-return]


def leaf(function: Function) -> Function:
    """Compile `function` into the kernels that call it: for the small helpers of a hardware unit, never for walkers.

    Called from Python, it runs as Python.
    """
    return _way.leaf(function)  # type: ignore[no-any-return]


def overloaded(function: Function) -> Any:
    """Return a function of many implementations, chosen by the type of the first argument, a NamedTuple.

    It is `functools.singledispatch`'s: ``register`` gives it a routine or a leaf for a type. In compiled code the
    choice is made when a kernel is compiled for the type. `function` is taken where a type has none; it is compiled
    too.
    """
    made = singledispatch(function)
    generics.append(made)
    _way.overload(made)
    return made


def resolved(kernel: Function, *arguments: Any) -> Function:
    """Return what calls a kernel with arguments of just the types of these, and looks at no types any more.

    For calls by the thousand with many arrays, or with NamedTuples of arrays: numba looks at the type of each, which
    takes half a microsecond.
    """
    return _way.resolved(kernel, *arguments)  # type: ignore[no-any-return]


def of_one_type(kernel: Function) -> Function:
    """Return what calls a kernel always with arguments of the types that the first call has, as `resolved` does."""
    entry: Function | None = None

    def call(*arguments: Any) -> Any:
        nonlocal entry
        if entry is None:
            entry = resolved(kernel, *arguments)
        return entry(*arguments)

    return call


def silicon(header: np.dtype[Any], names: Sequence[str], keyed: int) -> Silicon:
    """Return what compiled code sees of cores and LLCs of any geometry.

    Parameters
    ----------
    header : dtype
        Of what each core's record begins with: words, rows of words, and a record ``units`` whose ``place`` says of
        each unit, in the order of `names`, its first word in the core, its sets, its ways, its policy and, behind
        another, the words of a set besides.
    names : sequence of str
        The fields of a core's record that are its units, and "llc", which is none.
    keyed : int
        How many of them, the first, keep a value with each tag.
    """
    return _way.silicon(header, tuple(names), keyed)  # type: ignore[no-any-return]


def opaque_core(core: NDArray[Any]) -> NDArray[Any]:
    """Return a core, record[1], as a kernel is given it: of a type that does not tell its geometry."""
    return _way.opaque_core(core)  # type: ignore[no-any-return]


def opaque_llc(llc: NDArray[Any]) -> NDArray[Any]:
    """Return an LLC, record[sets], likewise."""
    return _way.opaque_llc(llc)  # type: ignore[no-any-return]


def opaque_records(records: NDArray[Any]) -> NDArray[Any]:
    """Return records as a kernel is given them that only passes them on, by `caller_of`, to what knows their type."""
    return _way.opaque_records(records)  # type: ignore[no-any-return]


def target_of(routine: Function, silicon: Silicon, cores: NDArray[Any], llc: NDArray[Any], *others: Any) -> Any:
    """Return what the caller of a routine needs to call it with such cores, LLC and other arguments."""
    return _way.target_of(routine, silicon, cores, llc, *others)


def caller_of(routine: Function) -> Function:
    """Return what kernels call a routine with: (target, its arguments), cores, LLC and records opaque.

    The routine returns six int64.
    """
    return _way.caller_of(routine)  # type: ignore[no-any-return]


# Ask for the line of an address of this machine's: so that it is there when it is read.
prefetch: Final[Function] = _way.prefetch
