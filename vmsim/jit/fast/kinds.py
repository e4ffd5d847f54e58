"""numba's types of arguments, each found out once: for records that takes tenths of a millisecond every time."""

from __future__ import annotations

from typing import Any

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

import numpy as np
from numba import typeof

__all__ = ["kind_of", "shape_of"]

_found: dict[Any, Any] = {}


def shape_of(argument: Any) -> Any:
    """Return what the type of an array, a number or a tuple of such depends on: what is soon compared."""
    if isinstance(argument, np.ndarray):
        return argument.dtype, argument.ndim, argument.flags.num
    if isinstance(argument, tuple):
        return type(argument), *map(shape_of, argument)
    return type(argument)


def kind_of(argument: Any) -> Any:
    """Return the type of an argument."""
    shape = shape_of(argument)
    kind = _found.get(shape)
    if kind is None:
        kind = _found[shape] = typeof(argument)
    return kind
