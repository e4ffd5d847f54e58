"""The one numba decorator, its three strengths, and a cache key that covers every jitted source.

numba's own key covers only the file that a function stands in: editing a helper elsewhere leaves its cached
callers unchanged and wrong. Here the key is a digest of every file of the package that imports this module.

What depends on figures that few runs share, the geometry of a core, is typed and lowered once, with a table of figures
that has no values, and made machine code for each set of values (`specialise`): that is a sixth of the work.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import vmsim.jit.plain_numba  # noqa: F401  (before numba)

# isort: split

import llvmlite
import numba
import numpy
from llvmlite import binding
from numba import njit
from numba.core import config
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target
from numba.np import linalg

from vmsim.jit.kernel_cache import KernelCache, discard, folder_of, keep, kept

__all__ = ["FIGURES", "jitted_sources", "kernel", "leaf", "routine", "source_digest", "specialise"]

Kernel = Callable[..., Any]

# No reference counts: numba would otherwise count one per array and call (DESIGN: 2,200 against 376 ns per access).
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}

# numba imports scipy.linalg to see whether there is BLAS, which no kernel here calls: a fifth of a second. There is,
# for scipy is installed with vmsim; what asks for it later finds it.
_ensure_blas, linalg.ensure_blas = linalg.ensure_blas, lambda: None
import_module("numba.np.arraymath")
linalg.ensure_blas = _ensure_blas

FIGURES = "vmsim.figures"  # the table that `specialise` gives its values

# Entries from Python and C are a fifth of what compiling a small function takes.
_NO_ENTRY: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@cache
def jitted_sources() -> tuple[Path, ...]:
    """Return the files of the package that define kernels, or what numba is to make of a call in them, sorted."""
    root = Path(__file__).parent.parent
    marks = b"vmsim.jit import", b"numba.extending import"
    return tuple(path for path in sorted(root.rglob("*.py")) if any(mark in path.read_bytes() for mark in marks))


@cache
def source_digest() -> str:
    """Return the SHA-256 of every jitted source; it changes whenever a compiled result could."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in jitted_sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _stamp() -> str:
    """Return what a compiled result depends on: all jitted sources, and the libraries that compile them."""
    return f"{source_digest()} {numba.__version__} {llvmlite.__version__} {numpy.__version__}"


def kernel(function: Kernel) -> Kernel:
    """Compile `function` on first call; keep the result on disk."""
    compiled = cast(Any, njit)(**_OPTIONS, no_cfunc_wrapper=True, pipeline_class=_WholeCompiler)(function)
    if not config.DISABLE_JIT:  # type: ignore[attr-defined]
        compiled._cache = KernelCache(function, _stamp)
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


_ENTRY = "vmsim.entry"
_made: dict[tuple[Any, ...], tuple[Any, int]] = {}  # libraries are kept, for they take their code along


def specialise(function: Kernel, arguments: tuple[Any, ...], figures: tuple[int, ...]) -> int:
    """Return the address of a routine's machine code for some figures; keep it on disk, and what it is made from.

    Parameters
    ----------
    function : routine
        What reads the figures from the table FIGURES.
    arguments : tuple of numba types
        What it is called with.
    figures : tuple of int
        The values of the table.
    """
    key = function, arguments, figures
    if key not in _made:
        with global_compiler_lock:
            _made[key] = _machine_code(function, arguments, figures)
    return _made[key][1]


def _machine_code(function: Any, arguments: tuple[Any, ...], figures: tuple[int, ...]) -> tuple[Any, int]:
    codegen = cpu_target.target_context.codegen()
    stem = f"{function.__name__}-{_digest(_stamp())}-{_digest(codegen.magic_tuple(), arguments)}"
    name = f"{stem}-{_digest(figures)}"
    folder = folder_of(function.py_func.__code__.co_filename)
    library = _loaded(codegen, folder / f"{name}.nbc") if folder else None
    if library is None:
        module = _template(function, arguments, folder, stem)
        module.get_function(_ENTRY).name = name
        values = ", ".join(f"i64 {figure}" for figure in figures)
        module.link_in(binding.parse_assembly(f'@"{FIGURES}" = constant [{len(figures)} x i64] [{values}]'))
        module.get_global_variable(FIGURES).linkage = "internal"
        library = cast(Any, _Whole)(codegen, name)
        library.enable_object_caching()
        library._final_module.link_in(module)
        library.finalize()
        if folder:
            keep(folder / f"{name}.nbc", pickle.dumps(library.serialize_using_object_code()))
    return library, library.get_pointer_to_function(name)


def _loaded(codegen: Any, path: Path) -> Any:
    """Return a library that was kept; None if there is none."""
    data = kept(path)
    try:
        return None if data is None else codegen.unserialize_library(pickle.loads(data))
    except Exception:  # whole, but not of these libraries
        discard(path)
        return None


def _digest(*what: object) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _template(function: Any, arguments: tuple[Any, ...], folder: Path | None, stem: str) -> Any:
    """Return the code of a routine and of all it calls, neither optimised nor with figures."""
    code = kept(folder / f"{stem}.bc") if folder else None
    if code is not None:
        return binding.parse_bitcode(code)
    function.compile(arguments)
    made = function.overloads[arguments]
    module = made.library._final_module.clone()
    module.get_function(made.fndesc.llvm_func_name).name = _ENTRY
    if folder:
        for path in folder.glob(f"{function.__name__}-*"):
            if not path.name.startswith(f"{function.__name__}-{_digest(_stamp())}"):
                discard(path)  # of sources that are no more
        keep(folder / f"{stem}.bc", module.as_bitcode())
    return module
