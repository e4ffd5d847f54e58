"""What is to be simulated: a typed, immutable description, read from TOML and written to it."""

from vmsim.scenario.cpu import HARDWARE_MODES, MODES, Cpu, Figure, Mode
from vmsim.scenario.cpu_files import cpu_names
from vmsim.scenario.model import Scenario
from vmsim.scenario.settings import parse_settings
from vmsim.scenario.tables import Host, Pool, VmGroup, Watermarks
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
    "HARDWARE_MODES",
    "MODES",
    "Chase",
    "Cpu",
    "Figure",
    "Generator",
    "Gups",
    "Host",
    "Marks",
    "Mode",
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
    "parse_settings",
]
