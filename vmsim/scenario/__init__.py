"""What is to be simulated: a typed, immutable description, read from TOML and written to it.

Names are imported when they are first used: modules that the registered parts are made of can be imported without what
is made of all those parts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmsim.scenario.cpu import Cpu, Figure
    from vmsim.scenario.cpu_files import cpu_names, load_cpu
    from vmsim.scenario.keys import Pool
    from vmsim.scenario.model import Scenario
    from vmsim.scenario.modes import PagingMode, hardware_modes, mode_names
    from vmsim.scenario.names import Mode
    from vmsim.scenario.settings import parse_settings
    from vmsim.scenario.tables import Host, VmGroup, Watermarks
    from vmsim.scenario.vm import Marks, Vm
    from vmsim.scenario.workload import (
        Chase,
        Generator,
        Gups,
        Sequential,
        Trace,
        Uniform,
        WorkingSet,
        Workload,
        Zipf,
    )

__all__ = [
    "Chase",
    "Cpu",
    "Figure",
    "Generator",
    "Gups",
    "Host",
    "Marks",
    "Mode",
    "PagingMode",
    "Pool",
    "Scenario",
    "Sequential",
    "Trace",
    "Uniform",
    "Vm",
    "VmGroup",
    "Watermarks",
    "WorkingSet",
    "Workload",
    "Zipf",
    "cpu_names",
    "hardware_modes",
    "load_cpu",
    "mode_names",
    "parse_settings",
]

_HOMES = {
    "Chase": "workload",
    "Cpu": "cpu",
    "Figure": "cpu",
    "Generator": "workload",
    "Gups": "workload",
    "Host": "tables",
    "Marks": "vm",
    "Mode": "names",
    "PagingMode": "modes",
    "Pool": "keys",
    "Scenario": "model",
    "Sequential": "workload",
    "Trace": "workload",
    "Uniform": "workload",
    "Vm": "vm",
    "VmGroup": "tables",
    "Watermarks": "tables",
    "WorkingSet": "workload",
    "Workload": "workload",
    "Zipf": "workload",
    "cpu_names": "cpu_files",
    "load_cpu": "cpu_files",
    "hardware_modes": "modes",
    "mode_names": "modes",
    "parse_settings": "settings",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vmsim.scenario' has no attribute {name!r}")
    return getattr(import_module(f"vmsim.scenario.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
