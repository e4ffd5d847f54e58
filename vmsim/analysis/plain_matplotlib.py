"""matplotlib without the ``matplotlibrc`` of the current folder; import this before matplotlib.

Such a file may have LaTeX read a stranger's preamble, and pictures look other than elsewhere.
"""

from __future__ import annotations

from importlib import import_module

from vmsim.base.surroundings import unread

__all__: list[str] = []

with unread("matplotlibrc"):
    import_module("matplotlib")
