"""numba without the settings of the current folder; import this before numba.

numba reads ``.numba_config.yaml`` of the current folder when it is imported and before it compiles. Its ``cache_dir``
would have pickles loaded from a folder that came along, and its ``cache_locator_classes`` a module. Variables of the
environment (``NUMBA_…``) are the user's own and count as ever. A numba that was imported before is left as it is:
vmsim keeps its kernels where `vmsim.jit.kernel_cache` says in any case.
"""

from __future__ import annotations

import sys
from importlib import import_module

from vmsim.base.surroundings import unread

__all__: list[str] = []

_SETTINGS = ".numba_config.yaml"

if "numba" not in sys.modules:
    with unread(_SETTINGS):
        import_module("numba")
    import_module("numba.core.config").__dict__["_config_fname"] = ""
