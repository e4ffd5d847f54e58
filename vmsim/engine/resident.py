"""How much of this machine's memory a simulation takes, estimated before it starts, and how much there is.

The records of a host's and a guest's frames take memory once the frames have been used, and keep it for the whole run;
of simulated memory itself only page tables take some. Where a simulation needs more than the machine has, the operating
system would end it without a word.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from vmsim.base.errors import InputError
from vmsim.base.units import PAGE

if TYPE_CHECKING:
    from vmsim.scenario import Scenario, Vm

__all__ = ["FRAME_BYTES", "Part", "available", "check_memory", "most_jobs", "parts_of", "resident"]

PROCESS: Final = 250 << 20  # an interpreter with numpy, numba and the compiled kernels
FRAME_BYTES: Final = 21  # of a frame's record (frames.records.FRAME_RECORD)
_ENTRY: Final = 8
_MARGIN: Final = 1024  # pages of a VM besides those of its workload's region: tables, what stands ready
_CGROUP: Final = Path("/sys/fs/cgroup")


class Part(NamedTuple):
    """What one key of a scenario takes.

    Attributes
    ----------
    key : str
        The key to lower.
    size : int
        Bytes.
    """

    key: str
    size: int


def parts_of(scenario: Scenario) -> Iterator[Part]:
    """Yield what the parts of a simulation take, in bytes of resident memory, estimated from above."""
    frames = scenario.host.memory // PAGE
    besides = max(vm.paging.frame_records(vm.own) for vm in scenario.vms)
    used = frames
    if not scenario.host.fragmentation:  # whose page cache is all over the memory
        used = min(frames, sum(_pages_used(vm) + vm.pool.max for vm in scenario.vms) + scenario.host.table_span // PAGE)
    yield Part("host.memory", used * FRAME_BYTES + frames * besides)
    for vm in scenario.vms:
        yield Part(f"memory of VM {vm.name}", _of_vm(vm))


def _of_vm(vm: Vm) -> int:
    used = _pages_used(vm)
    size = used * _ENTRY * vm.paging.entries(bare=vm.bare) + vm.paging.records(vm.own, used)
    if not vm.bare:
        size += used * FRAME_BYTES + (2 * vm.pages if vm.dirty_log.method != "none" else 0)
    return size


def _pages_used(vm: Vm) -> int:
    """Return how many pages of its memory a VM may use at most: all, unless its workload has one region."""
    if vm.populate == "eager" or vm.fragmentation or not vm.workload.one_region:
        return vm.pages
    region = -(-getattr(vm.workload, "footprint", vm.memory) // PAGE)
    large = max(1 << vm.guest_order, 1 << vm.host_order)
    return min(vm.pages, region + region // 128 + large + vm.table_span // PAGE + _MARGIN)


def resident(scenario: Scenario) -> int:
    """Return about how many bytes of this machine's memory a simulation takes."""
    return PROCESS + sum(part.size for part in parts_of(scenario))


def available() -> tuple[int, str] | None:
    """Return the bytes that this process and its children may still take and what sets the limit; None: not known."""
    limits = [(size, what) for size, what in (_machine(), *_cgroups(), *_rlimits()) if size is not None]
    return min(limits) if limits else None


def check_memory(scenario: Scenario) -> None:
    """Refuse a simulation that needs more memory than there is.

    Raises
    ------
    InputError
        With what it needs, what there is, and which key to lower.
    """
    needed = resident(scenario)
    addresses = _limit("RLIMIT_AS")
    if addresses is not None and scenario.host.memory + needed > addresses:
        raise InputError(
            f"host.memory: the simulation would reserve {_words(scenario.host.memory)} of addresses and take about "
            f"{_words(needed)} of memory, and the limit of addresses (ulimit -v) is {_words(addresses)}. "
            "Lower host.memory, or raise the limit."
        )
    if needed <= PROCESS + (1 << 30) or (there := available()) is None or needed <= there[0] + PROCESS:
        return  # what is small is not asked about; this process is there already
    most = max(parts_of(scenario), key=lambda part: part.size)
    raise InputError(
        f"{most.key}: the simulation would take about {_words(needed)} of memory, {_words(most.size)} of it for this "
        f"({FRAME_BYTES} bytes and more for each 4 KiB), and {there[1]} leaves {_words(there[0])}. "
        f"Lower {most.key}, or use a machine with more memory."
    )


def most_jobs(needed: int) -> tuple[int, str] | None:
    """Return how many simulations of so many bytes fit in memory at once, at least 1, and what limits them."""
    there = available()
    return (max(1, there[0] // needed), f"{there[1]} leaves {_words(there[0])}") if there else None


def _words(size: int) -> str:
    return f"{size / (1 << 30):,.1f} GiB"


def _machine() -> tuple[int | None, str]:
    """Return what memory this machine has to give: free and reclaimable, or, where nobody says, all that it has."""
    left = _meminfo()
    return (_installed() if left is None else left), "this machine"


def _meminfo(file: Path = Path("/proc/meminfo")) -> int | None:
    """Return what Linux estimates to be there for new programs (proc(5), MemAvailable); None: it does not say.

    Other systems have no such file, kernels before 3.14 no such line, and a container may show a part of it.
    """
    try:
        lines = file.read_text("ascii").splitlines()
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)
    except (OSError, ValueError, IndexError):
        return None


def _installed() -> int | None:
    """Return how much memory is installed (sysconf(3)); None: the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _cgroups(root: Path = _CGROUP, proc: Path = Path("/proc/self/cgroup")) -> Iterator[tuple[int | None, str]]:
    """Yield what the control groups around this process leave it (Documentation/admin-guide/cgroup-v2.rst, memory)."""
    try:
        lines = [line.split(":", 2) for line in proc.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        return
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        here = top / path.lstrip("/")
        for group in (here, *here.parents):
            if not group.is_relative_to(top):
                break
            try:
                limit, used = ((group / name).read_text("ascii").strip() for name in names)
                if limit != "max" and int(limit) < 1 << 60:
                    yield max(0, int(limit) - int(used)), "its control group"
            except (OSError, ValueError):
                continue


def _rlimits() -> Iterator[tuple[int | None, str]]:
    """Yield the limit of data (setrlimit(2))."""
    yield _limit("RLIMIT_DATA"), "its limit of data (ulimit -d)"


def _limit(name: str) -> int | None:
    """Return a limit of this process; None where there is none."""
    try:
        import resource
    except ImportError:  # not on this system
        return None
    limit: int = resource.getrlimit(getattr(resource, name))[0]
    return None if limit == resource.RLIM_INFINITY else limit
