"""The words of a core, whatever its geometry."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numpy.typing import NDArray

__all__ = ["words_of"]


@intrinsic
def _words_of(_: Any, core: Any) -> Any:
    array = types.Array(types.int64, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        made = context.make_array(array)(context, builder)
        first = builder.bitcast(values[0], context.get_data_type(types.int64).as_pointer())
        shape = cgutils.pack_array(builder, [context.get_constant(types.intp, core.size // 8)])
        strides = cgutils.pack_array(builder, [context.get_constant(types.intp, 8)])
        populate_array(made, first, shape, strides, context.get_constant(types.intp, 8), None)
        return made._getvalue()

    return array(core), generate


def _words_plainly(core: np.record) -> NDArray[np.int64]:
    address, _ = core.__array_interface__["data"]
    words = (ctypes.c_int64 * (core.nbytes // 8)).from_address(address)
    return np.frombuffer(words, np.int64)


# A core's record as int64[words], for kernels: what is written to the one is written to the other.
words_of = _words_plainly if config.DISABLE_JIT else _words_of  # type: ignore[attr-defined]
