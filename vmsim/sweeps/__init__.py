"""Sweeps of any size that never lose a point: specification, identity, executors, store."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmsim.sweeps.driver import Summary, run_sweep
    from vmsim.sweeps.points import Point
    from vmsim.sweeps.sweep import Sweep
    from vmsim.sweeps.tables import read_failures, read_results

__all__ = ["Point", "Summary", "Sweep", "read_failures", "read_results", "run_sweep"]

_HOMES = {
    "Point": "vmsim.sweeps.points",
    "Summary": "vmsim.sweeps.driver",
    "Sweep": "vmsim.sweeps.sweep",
    "read_failures": "vmsim.sweeps.tables",
    "read_results": "vmsim.sweeps.tables",
    "run_sweep": "vmsim.sweeps.driver",
}


def __getattr__(name: str) -> Any:
    # Workers import modules of this package, and need neither pandas nor pyarrow.
    if name not in _HOMES:
        raise AttributeError(f"module 'vmsim.sweeps' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
