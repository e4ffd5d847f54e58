"""What happens between the rooms: steps that take time, exits, moments to look at, the end of a VM."""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import simpy
from numpy.typing import NDArray

__all__ = ["NEVER", "NONE", "Exit", "Moment", "Observe", "Observer", "Resume", "Steps", "Stop", "VmStopped", "Words"]

_Value = TypeVar("_Value")


Words: TypeAlias = NDArray[np.int64]


Steps: TypeAlias = Generator[simpy.Event, Any, _Value]
"""What takes simulated time: a generator of the events that it waits for, which returns a value."""


NEVER = 1 << 62  # pages that no pool has, cycles that no host lives
NONE = -1  # the status where compiled code has left no fault over


class Exit(NamedTuple):
    """Why a vCPU has left what it ran, and where.

    Attributes
    ----------
    reason : int
        A `machine.vcpu.Reason`.
    gva, gpa, code : int
        As the processor gives them; the error code in the page-fault format (`machine.formats.CODE_PRESENT` ...).
    times : int
        How often the access that could not be made is made in a row.
    write : bool
        Whether it writes.
    status, value : int
        What compiled code has left over of a fault that it had begun to handle, in the monitor's own terms.
    spent : int
        Cycles that it had used for it and that nobody has paid yet.
    """

    reason: int
    gva: int
    gpa: int
    code: int
    times: int = 1
    write: bool = False
    status: int = NONE
    value: int = 0
    spent: int = 0


class Resume(Enum):
    """How a vCPU goes on after an exit."""

    RETRY = auto()  # the access is made again
    MADE = auto()  # the monitor has made it, all its `times`


class Moment(Enum):
    """When something of a simulation can be looked at: all of it is in order."""

    STARTED = auto()  # no VM has run yet
    SLICE_ENDED = auto()  # of a VM's vCPU
    VM_FINISHED = auto()  # its workload is over, and it still has all its memory
    VM_GONE = auto()  # it has given everything back
    MOVING = auto()  # the host is about to move pages: no guest runs until it has
    MOVED = auto()


class Observer(Protocol):
    """Who looks at a simulation and changes nothing."""

    def __call__(self, what: Moment, host: Any, vm: Any) -> None:
        """Look at the host, a `vmsim.engine.simulation.Simulation`; `vm` is whose moment it is, or None."""


Observe: TypeAlias = Callable[[Moment, Any], None]
"""Told of each moment, and whose it is: a VM or None."""


class Stop(Enum):
    """Why a VM cannot go on."""

    OUT_OF_MEMORY = auto()  # its kernel has no frame left, or a program of the host's has reached its limit
    NOT_BACKED = auto()  # the host has too little memory for it before the clock starts
    BEYOND_MEMORY = auto()  # its page tables lead to a gpa where it has neither memory nor a device
    RESERVED_BIT = auto()  # an entry of its page tables has a bit that must be 0
    SWAP_READ = auto()  # a page that the host had swapped out cannot be read
    KILLED = auto()  # the host has run out of memory, and ends it
    LIMIT = auto()  # it needs more than its host lets it have, and has nothing that could be taken for it
    KERNEL_HALF = auto()  # a program has reached for an address that is its kernel's


class VmStopped(Exception):  # noqa: N818  (it reads as what it is)
    """A VM ends here.

    Parameters
    ----------
    what : Stop
        Why.
    who : str, optional
        Who has stopped it: "its kernel", as Linux does (mm/fault.c, pgtable_bad), or "the monitor".
    address : int, optional
        The gpa beyond its memory, the gva whose entry has the bit, or that in the kernel's half.
    """

    def __init__(self, what: Stop, *, who: str = "its kernel", address: int = -1) -> None:
        super().__init__(what, who, address)
        self.what = what
        self.who = who
        self.address = address
