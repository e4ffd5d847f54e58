"""The one numba decorator and its three strengths."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

from numba import njit
from numba.core.compiler import Compiler
from numba.core.dispatcher import Dispatcher
from numba.extending import overload as numba_overload
from numba.np import linalg

from vmsim.jit.fast.cache import KernelCache
from vmsim.jit.fast.kinds import kind_of, shape_of
from vmsim.jit.fast.libraries import Part, Whole

__all__ = ["kernel", "leaf", "overload", "resolved", "routine"]

Kernel = Callable[..., Any]
_entries: dict[Any, Kernel] = {}

# No reference counts: numba would otherwise count one per array and call (DESIGN: 2,200 against 376 ns per access).
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}

# numba imports scipy.linalg to see whether there is BLAS, which no kernel here calls: a fifth of a second. There is,
# for scipy is installed with vmsim; what asks for it later finds it.
_ensure_blas, linalg.ensure_blas = linalg.ensure_blas, lambda: None
import_module("numba.np.arraymath")
linalg.ensure_blas = _ensure_blas

# Entries from Python and C are a fifth of what compiling a small function takes.
_NO_ENTRY: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: Kernel) -> Kernel:
    """Compile `function` on first call; keep the result on disk."""
    compiled = cast(Any, njit)(**_OPTIONS, no_cfunc_wrapper=True, pipeline_class=_WholeCompiler)(function)
    compiled._cache = KernelCache(function)
    return cast(Kernel, compiled)


class _WholeCompiler(Compiler):
    def define_pipelines(self) -> Any:
        state = self.state
        state.library = Whole(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return super().define_pipelines()


class _PartCompiler(Compiler):
    def define_pipelines(self) -> Any:
        state = self.state
        state.library = Part(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.inlined = state.flags.forceinline
        return super().define_pipelines()


class _Inside(Dispatcher):
    """A function that kernels call; called from Python it runs as Python."""

    def __call__(self, *arguments: Any) -> Any:
        return self.py_func(*arguments)


def _inside(function: Kernel, **options: bool) -> Kernel:
    compiled = cast(Any, njit)(**_OPTIONS, **_NO_ENTRY, pipeline_class=_PartCompiler, **options)(function)
    compiled.__class__ = _Inside
    return cast(Kernel, compiled)


def routine(function: Kernel) -> Kernel:
    """Compile `function` once into each kernel that calls it, as a call: for what is long, or seldom needed."""
    return _inside(function, forceinline=False)  # unless set, numba takes this from the first caller


def leaf(function: Kernel) -> Kernel:
    """Compile `function` into the kernels that call it: for the small helpers of a hardware unit, never for walkers."""
    return _inside(function, forceinline=True)


def overload(generic: Any) -> None:
    """Have compiled code choose among the implementations of a function as Python does."""
    options: Any = {**_OPTIONS, **_NO_ENTRY, "forceinline": False, "pipeline_class": _PartCompiler}

    @numba_overload(generic, jit_options=options, strict=False)
    def choose(first: Any, *_: Any) -> Any:
        chosen = generic.dispatch(first.instance_class)
        return getattr(chosen, "py_func", chosen)


def resolved(kernel: Any, *arguments: Any) -> Kernel:
    """Return the entry to a kernel that is compiled for arguments of these types."""
    key = kernel, shape_of(arguments)
    entry = _entries.get(key)
    if entry is None:
        signature = tuple(map(kind_of, arguments))
        kernel.compile(signature)
        entry = _entries[key] = kernel.overloads[signature].entry_point
    return entry
