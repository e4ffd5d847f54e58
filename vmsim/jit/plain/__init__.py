"""Kernels compiled with numba's public interface alone.

`njit` with its own cache, `register_jitable`, and what numba's manual calls its extension interface (`numba.extending`:
types, models, intrinsics). Nothing here knows how numba goes about it.
"""

from vmsim.jit.plain.decorators import (
    caller_of,
    kernel,
    leaf,
    opaque_core,
    opaque_llc,
    opaque_records,
    overload,
    resolved,
    routine,
    target_of,
)
from vmsim.jit.plain.silicon import silicon
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
