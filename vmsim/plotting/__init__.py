"""Figures of runs, comparisons and sweeps: the common ones, in one style."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmsim.plotting.api import plot
    from vmsim.plotting.plot import Plot

__all__ = ["Plot", "plot"]

_HOMES = {"Plot": "vmsim.plotting.plot", "plot": "vmsim.plotting.api"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vmsim.plotting' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
