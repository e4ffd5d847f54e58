"""Kernels compiled with parts of numba that are not public: what they gain is in docs/decisions/0009-numba.md."""

from vmsim.jit.fast.calls import caller_of, opaque_core, opaque_llc, opaque_records, target_of
from vmsim.jit.fast.decorators import kernel, leaf, overload, resolved, routine
from vmsim.jit.fast.silicon import silicon
from vmsim.jit.prefetch import prefetch

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
