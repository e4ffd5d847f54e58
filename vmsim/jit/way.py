"""Which way kernels are compiled, by the environment and by the numba that is there.

fast
    `vmsim.jit.fast`: with parts of numba that are not public, for the versions of numba that vmsim is tested with.
plain
    `vmsim.jit.plain`: with numba's public interface alone. It gives the same results, later.
python
    `vmsim.jit.python`: not at all. ``NUMBA_DISABLE_JIT=1``, which is numba's own variable, asks for it.

``VMSIM_JIT`` names one of the first two. Where it does not, the fast way is taken if it can be: a numba that vmsim is
not tested with, or one that lacks what the fast way needs, selects the plain way, and one line on stderr says so.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from types import ModuleType
from typing import Final

import vmsim.jit.clean_numba  # noqa: F401  (before numba)

# isort: split

import numba

from vmsim.base.errors import InputError, nearest

__all__ = ["FAST", "PLAIN", "PYTHON", "TESTED", "VARIABLE", "select"]

VARIABLE: Final = "VMSIM_JIT"
FAST: Final = "fast"
PLAIN: Final = "plain"
PYTHON: Final = "python"
TESTED: Final = ((0, 61), (0, 69))  # from this minor version of numba on, and up to but without that


def select() -> tuple[str, ModuleType]:
    """Return the name of the way that kernels are compiled, and its module.

    Raises
    ------
    InputError
        VMSIM_JIT names no way; or it names the fast one, which this numba does not allow.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", FAST, PLAIN):
        raise InputError(
            f"{VARIABLE}: expected {FAST} or {PLAIN}, found {wanted!r}. {nearest(wanted, (FAST, PLAIN))}", key=VARIABLE
        )
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return PYTHON, import_module(f"vmsim.jit.{PYTHON}")
    if wanted != PLAIN:
        problem = _untested() if not wanted else None
        if problem is None:
            try:
                return FAST, import_module(f"vmsim.jit.{FAST}")
            except Exception as error:
                problem = f"numba {numba.__version__} lacks what the fast kernels need ({error})"
        if wanted:
            raise InputError(f"{VARIABLE}=fast: {problem}.", key=VARIABLE)
        _say(problem)
        os.environ[VARIABLE] = PLAIN  # for processes that this one starts, which need not say it again
    return PLAIN, import_module(f"vmsim.jit.{PLAIN}")


def _untested() -> str | None:
    found = re.match(r"(\d+)\.(\d+)", numba.__version__)
    version = tuple(map(int, found.groups())) if found else (0, 0)
    first, after = TESTED
    if first <= version < after:
        return None
    return f"numba {numba.__version__} is not one of those that vmsim is tested with ({_text(first)} up to {_last()})"


def _last() -> str:
    major, minor = TESTED[1]
    return _text((major, minor - 1))


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _say(problem: str) -> None:
    if sys.stderr is not None:
        print(
            f"vmsim: {problem}: kernels are compiled the plain way, which gives the same results but is slower.",
            file=sys.stderr,
        )
