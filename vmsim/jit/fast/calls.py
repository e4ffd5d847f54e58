"""Calls of a routine by the address of its machine code.

A kernel that calls another holds a copy of its machine code. A vCPU's run is made for each geometry of a core, and what
is built around it would be as well. Called by address, with arrays whose geometry is not in their type, it need not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from vmsim.jit.fast.kinds import kind_of, shape_of
from vmsim.jit.fast.specialise import specialise
from vmsim.jit.silicon import Silicon

__all__ = ["caller_of", "opaque_core", "opaque_llc", "opaque_records", "target_of"]

_targets: dict[Any, int] = {}  # by what they are made for


def opaque_records(records: NDArray[Any]) -> NDArray[Any]:
    """Return the first word of each record: as good an argument to a call, and of a type that does not say of what.

    numba passes a one-dimensional array as its address, length and stride, whatever its elements.
    """
    return records.view(np.int64).reshape(len(records), -1)[:, 0]


opaque_core = opaque_llc = opaque_records


def target_of(
    routine: Callable[..., Any], silicon: Silicon, cores: NDArray[Any], llc: NDArray[Any], *others: Any
) -> int:
    """Return the address of a routine made for a geometry."""
    assert silicon.figures_of
    key = routine, cores.dtype, llc.dtype, len(llc), shape_of(others)
    if key not in _targets:
        arguments = tuple(map(kind_of, (opaque_core(cores[:1]), opaque_llc(llc), *others)))
        _targets[key] = specialise(routine, arguments, silicon.figures_of(cores, llc))
    return _targets[key]


@intrinsic
def _call(_: Any, target: Any, *arguments: Any) -> Any:
    signature = types.UniTuple(types.int64, 6)(target, types.StarArgTuple(arguments))

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        result, given = signature.return_type, signature.args[1].types
        shape = context.call_conv.get_function_type(result, given)
        function = builder.inttoptr(values[0], shape.as_pointer())
        passed = cgutils.unpack_tuple(builder, values[1])
        _, value = context.call_conv.call_function(builder, function, result, given, passed)
        return value  # without a look at its status: routines raise nothing (error_model="numpy")

    return signature, generate


def caller_of(routine: Callable[..., Any]) -> Callable[..., Any]:
    """Return what calls any routine that returns six int64, by its address."""
    return _call
