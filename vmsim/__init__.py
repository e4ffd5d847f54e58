"""Simulate what memory costs when several virtual machines share a host.

``vmsim.run("scenario.toml")`` simulates one scenario, ``vmsim.compare("scenario.toml")`` the same one under
several paging modes, ``vmsim.sweep("scenario.toml", {"host.pool.min": [16, 64]})`` at many points. Everything is
imported when it is first used.
"""

from __future__ import annotations

import os
import sys

if os.path.basename(sys.argv[0] if sys.argv else "") == "vmsim":  # the command line
    import vmsim.base.leaving  # noqa: F401  (from here on Ctrl-C ends it in a line)

# isort: split

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmsim.advice.api import advise
    from vmsim.advice.result import Advice
    from vmsim.alone import slowdown
    from vmsim.analysis.miss_ratio import mrc
    from vmsim.api import compare, run
    from vmsim.base.errors import InputError
    from vmsim.lifetimes import arrivals
    from vmsim.lookups import cpus, explain, load
    from vmsim.plotting.api import plot
    from vmsim.plotting.plot import Plot
    from vmsim.record.comparison import Comparison
    from vmsim.record.result import Result
    from vmsim.reporting.page import report
    from vmsim.scenario import Scenario
    from vmsim.sweeps.api import sweep
    from vmsim.validation.studies import validate

    __version__: str

__all__ = [
    "Advice",
    "Comparison",
    "InputError",
    "Plot",
    "Result",
    "Scenario",
    "__version__",
    "advise",
    "arrivals",
    "compare",
    "cpus",
    "explain",
    "load",
    "mrc",
    "plot",
    "report",
    "run",
    "slowdown",
    "sweep",
    "validate",
]

_HOMES = {
    "Advice": "vmsim.advice.result",
    "Comparison": "vmsim.record.comparison",
    "InputError": "vmsim.base.errors",
    "Plot": "vmsim.plotting.plot",
    "Result": "vmsim.record.result",
    "Scenario": "vmsim.scenario",
    "advise": "vmsim.advice.api",
    "arrivals": "vmsim.lifetimes.convert",
    "compare": "vmsim.api",
    "cpus": "vmsim.lookups",
    "explain": "vmsim.lookups",
    "load": "vmsim.lookups",
    "mrc": "vmsim.analysis.miss_ratio",
    "plot": "vmsim.plotting.api",
    "report": "vmsim.reporting.page",
    "run": "vmsim.api",
    "slowdown": "vmsim.alone",
    "sweep": "vmsim.sweeps.api",
    "validate": "vmsim.validation.studies",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("vmsim")
    if name not in _HOMES:
        raise AttributeError(f"module 'vmsim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
