"""A line of the simulating machine's memory asked for before it is read."""

from __future__ import annotations

from typing import Any

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["ask", "prefetch"]

_BYTES = ir.IntType(8).as_pointer()
_INT = ir.IntType(32)


def ask(builder: Any, place: Any) -> None:
    """Emit the request for the line at a pointer."""
    shape = ir.FunctionType(ir.VoidType(), [_BYTES, _INT, _INT, _INT])
    function = builder.module.declare_intrinsic("llvm.prefetch", [_BYTES], shape)
    where = builder.bitcast(place, _BYTES)
    builder.call(function, [where, _INT(0), _INT(3), _INT(1)])  # to be read, kept in all caches, as data


@intrinsic
def prefetch(_: Any, memory: Any, index: Any) -> Any:
    """Ask for the line of word `index` of an int64 array."""

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        words = context.make_array(sig.args[0])(context, builder, values[0]).data
        ask(builder, builder.gep(words, [values[1]]))
        return context.get_dummy_value()

    return types.none(memory, types.uint64), generate
