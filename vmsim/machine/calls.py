"""Calls of a vCPU's run by the address of its machine code.

A kernel that calls another holds a copy of its machine code. `run` is made for each geometry of a core, and what is
built around it would be as well. Called by address, with arrays whose geometry is not in their type, it need not.
"""

from __future__ import annotations

from typing import Any

import vmsim.jit.plain_numba  # noqa: F401  (before numba)

# isort: split

import numpy as np
from numba import typeof, types
from numba.core import cgutils, config
from numba.extending import intrinsic
from numpy.typing import NDArray

from vmsim.jit import specialise
from vmsim.machine.silicon import figures_of

__all__ = ["call", "opaque", "target_of"]

_PLAIN: bool = config.DISABLE_JIT  # type: ignore[attr-defined]


def opaque(records: NDArray[Any]) -> NDArray[Any]:
    """Return the first word of each record: as good an argument to a `call`, and of a type that does not say of what.

    numba passes a one-dimensional array as its address, length and stride, whatever its elements.
    """
    return records if _PLAIN else records.view(np.int64).reshape(len(records), -1)[:, 0]


def target_of(routine: Any, cores: NDArray[Any], llc: NDArray[Any], *others: Any) -> Any:
    """Return what `call` needs to call a routine with such cores, LLC and other arguments: its address."""
    if _PLAIN:
        return routine
    arguments = tuple(typeof(argument) for argument in (opaque(cores), opaque(llc), *others))
    return specialise(routine, arguments, figures_of(cores, llc))


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


def _call_plainly(target: Any, *arguments: Any) -> Any:
    return target(*arguments)


# Six int64 from the routine at a target; the arguments are those of `target_of`, records opaque.
call = _call_plainly if _PLAIN else _call
