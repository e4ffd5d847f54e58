"""The one numba decorator, its three strengths, and a cache key that covers every jitted source.

numba's own key covers only the file that a function stands in: editing a helper elsewhere leaves its cached
callers unchanged and wrong. Here the key is a digest of every file of the package that imports this module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

from numba import njit
from numba.core import config
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.dispatcher import Dispatcher

__all__ = ["jitted_sources", "kernel", "leaf", "routine", "source_digest"]

Kernel = Callable[..., Any]

# No reference counts: numba would otherwise count one per array and call (DESIGN: 2,200 against 376 ns per access).
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}

# Entries from Python and C are a fifth of what compiling a small function takes.
_NO_ENTRY: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@cache
def jitted_sources() -> tuple[Path, ...]:
    """Return the files of the package that define kernels, or what numba is to make of a call in them, sorted."""
    root = Path(__file__).parent
    marks = b"vmsim.jit import", b"numba.extending import"
    return tuple(path for path in sorted(root.rglob("*.py")) if any(mark in path.read_bytes() for mark in marks))


@cache
def source_digest() -> str:
    """Return the SHA-256 of every jitted source; it changes whenever a compiled result could."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in jitted_sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _StampAll:
    def get_source_stamp(self) -> str:
        return source_digest()


class _Provided(_StampAll, UserProvidedCacheLocator):
    pass


class _InTree(_StampAll, InTreeCacheLocator):
    pass


class _UserWide(_StampAll, UserWideCacheLocator):
    pass


class _Impl(CompileResultCacheImpl):
    _locator_classes = [_Provided, _InTree, _UserWide]  # noqa: RUF012  (numba's own declaration)


class _Cache(FunctionCache):
    _impl_class = _Impl


def kernel(function: Kernel) -> Kernel:
    """Compile `function` on first call; keep the result on disk."""
    compiled = cast(Any, njit)(**_OPTIONS, no_cfunc_wrapper=True, pipeline_class=_WholeCompiler)(function)
    if not config.DISABLE_JIT:  # type: ignore[attr-defined]
        compiled._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return cast(Kernel, compiled)


class _Whole(JITCodeLibrary):
    """The code of a kernel and of all it calls, which nothing else can call: unused arguments are not passed."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if function.linkage.name == "linkonce_odr" and not function.is_declaration:
                function.linkage = "internal"
        super()._optimize_final_module()  # type: ignore[no-untyped-call]


class _Part(JITCodeLibrary):
    """The code of a function that only kernels call: optimised and made machine code within them, and only there.

    numba does both for each function by itself as well, which took two thirds of the time to compile a walker.
    """

    inlined = False

    def _optimize_final_module(self) -> None:
        if not self.inlined:
            for function in self._final_module.functions:
                if function.linkage.name == "external" and not function.is_declaration:
                    function.add_function_attribute("noinline")

    def _finalize_final_module(self) -> None:
        self._finalized = True

    @property
    def codegen(self) -> Any:
        return _NoEnvironment  # there is no machine code for numba to give its environment to


class _NoEnvironment:
    @staticmethod
    def set_env(name: str, environment: Any) -> None:
        """Do nothing."""


class _WholeCompiler(Compiler):
    def define_pipelines(self) -> Any:
        state = self.state
        state.library = _Whole(state.targetctx.codegen(), state.func_id.func_qualname)  # type: ignore[no-untyped-call]
        state.library.enable_object_caching()
        return super().define_pipelines()  # type: ignore[no-untyped-call]


class _PartCompiler(Compiler):
    def define_pipelines(self) -> Any:
        state = self.state
        state.library = _Part(state.targetctx.codegen(), state.func_id.func_qualname)  # type: ignore[no-untyped-call]
        state.library.inlined = state.flags.forceinline
        return super().define_pipelines()  # type: ignore[no-untyped-call]


class _Inside(Dispatcher):
    """A function that kernels call; called from Python it runs as Python."""

    def __call__(self, *arguments: Any) -> Any:
        return self.py_func(*arguments)


def _inside(function: Kernel, **options: bool) -> Kernel:
    compiled = cast(Any, njit)(**_OPTIONS, **_NO_ENTRY, pipeline_class=_PartCompiler, **options)(function)
    if not config.DISABLE_JIT:  # type: ignore[attr-defined]
        compiled.__class__ = _Inside
    return cast(Kernel, compiled)


def routine(function: Kernel) -> Kernel:
    """Compile `function` once into each kernel that calls it, as a call: for what is long, or seldom needed."""
    return _inside(function, forceinline=False)  # unless told, numba takes this from whoever calls it first


def leaf(function: Kernel) -> Kernel:
    """Compile `function` into the kernels that call it: for the small helpers of a hardware unit, never for walkers."""
    return _inside(function, forceinline=True)
