"""Machine code for each geometry of a core, from one compilation.

What depends on figures that few runs share, the geometry of a core, is typed and lowered once, with a table of figures
that has no values, and made machine code for each set of values: that is a sixth of the work.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

from llvmlite import binding
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from vmsim.jit.fast.libraries import Whole
from vmsim.jit.kernel_cache import discard, folder_of, keep, kept
from vmsim.jit.sources import implementations, stamp_of

__all__ = ["FIGURES", "specialise"]

FIGURES = "vmsim.figures"  # the table that `specialise` gives its values
_ENTRY = "vmsim.entry"
made: dict[tuple[Any, ...], tuple[Any, int]] = {}  # libraries are kept, for they take their code along


def specialise(function: Callable[..., Any], arguments: tuple[Any, ...], figures: tuple[int, ...]) -> int:
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
    if key not in made:
        with global_compiler_lock:
            made[key] = _machine_code(function, arguments, figures)
    return made[key][1]


def _machine_code(function: Any, arguments: tuple[Any, ...], figures: tuple[int, ...]) -> tuple[Any, int]:
    codegen = cpu_target.target_context.codegen()
    sources = f"{function.__name__}-{_digest(stamp_of(function.py_func))}"
    stem = f"{sources}-{_digest(codegen.magic_tuple(), arguments, implementations(arguments))}"
    name = f"{stem}-{_digest(figures)}"
    folder = folder_of(function.py_func.__code__.co_filename)
    library = _loaded(codegen, folder / f"{name}.nbc") if folder else None
    if library is None:
        module = _template(function, arguments, folder, stem)
        module.get_function(_ENTRY).name = name
        values = ", ".join(f"i64 {figure}" for figure in figures)
        module.link_in(binding.parse_assembly(f'@"{FIGURES}" = constant [{len(figures)} x i64] [{values}]'))
        module.get_global_variable(FIGURES).linkage = "internal"
        library = cast(Any, Whole)(codegen, name)
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
            if not path.name.startswith(f"{function.__name__}-{_digest(stamp_of(function.py_func))}-"):
                discard(path)  # of sources that are no more
        keep(folder / f"{stem}.bc", module.as_bitcode())
    return module
