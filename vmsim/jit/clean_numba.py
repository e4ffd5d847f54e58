"""numba without the settings of the current folder; import this before numba.

numba reads ``.numba_config.yaml`` of the current folder when it is imported and before it compiles. Its ``cache_dir``
would have pickles loaded from a folder that came along, and its ``cache_locator_classes`` a module. Variables of the
environment (``NUMBA_…``) are the user's own and count as ever. A numba that was imported before is left as it is:
vmsim keeps its kernels where `vmsim.jit.kernel_cache` says in any case.

Two libraries that numba imports where they are installed are left out, which takes a twentieth of a run's start: one
reads those settings, the other is for measuring which lines of a kernel run, unless that is being done.
"""

from __future__ import annotations

import sys
from importlib import import_module

from vmsim.base.surroundings import unread

__all__: list[str] = []

_SETTINGS = ".numba_config.yaml"
_UNUSED = ("yaml", "coverage")

if "numba" not in sys.modules:
    left_out = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]  # None: it cannot be imported
    try:
        with unread(_SETTINGS):
            import_module("numba")
    finally:
        for name in left_out:
            del sys.modules[name]
    import_module("numba.core.config").__dict__["_config_fname"] = ""
