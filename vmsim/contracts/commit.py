"""What compiled code of one room asks of another: the twins of `Kernel`, `Monitor`, `Backer` and `Mmu`.

A paging mode's state is a NamedTuple of arrays here, a guest kernel's another. For each there is an implementation of
what stands below, in the mode's own folder or in guest/, which waits for nobody: it first finds out whether it can go
through with what is asked, and changes nothing where it cannot. A `Monitor` does the rest.
"""

from __future__ import annotations

import numpy as np

from vmsim.contracts.steps import NONE
from vmsim.jit import leaf, overloaded

__all__ = [
    "BILL",
    "FORGET_SPACE",
    "FORGET_UNTAGGED",
    "LATENCIES",
    "clear_bill",
    "close",
    "commit_fault",
    "handle",
    "load",
    "log",
    "make_bill",
    "reserve_fault",
    "spare",
    "spend",
    "store",
    "touch",
]

LATENCIES = 128  # that differ, and are kept until they are collected
FORGET_SPACE = 1  # what the processor keeps of the space that runs: a reload of CR3
FORGET_UNTAGGED = 2  # and of all that has no tag: an exit of a VM without one, and the entry after it
REASONS = 8  # that a monitor's exits can have

# What a vCPU's exits and page faults took that compiled code has handled, until that is collected.
BILL = np.dtype(
    (
        np.record,
        [
            ("now", "i8"),  # cycles since the run began, the guest's own accesses included
            ("spent", "i8"),  # of them in the exit under way
            ("status", "i8"),  # what is left of a fault that was begun, in the monitor's own terms; NONE: nothing
            ("value", "i8"),
            ("stop", "i8"),  # 1: to be collected before the guest goes on
            ("each", "i8"),  # FORGET_UNTAGGED: with each exit; 0: not
            ("forget", "i8"),  # FORGET_SPACE, FORGET_UNTAGGED: what the processor forgets before the guest goes on
            ("pending", "i8"),  # 1: there is something to collect: from here on
            ("flush", "i8"),  # 1: all that the processor keeps of the VM's spaces is to be forgotten then
            ("forgot", "i8"),  # 1: it has forgotten the space
            ("faults", "i8"),  # of the guest's kernel
            ("guest", "i8"),  # cycles of those
            ("first", "i8"),  # cycles of exits on the way to a page that the guest maps for the first time
            ("exits", "i8", (REASONS,)),
            ("cycles", "i8", (REASONS,)),
            ("logged", "i8"),  # latencies of faults that differ
            ("latency", "i8", (LATENCIES,)),  # in no order
            ("times", "i8", (LATENCIES,)),  # how often each occurred; 0: there is none in this place
        ],
    )
)

_COLLECTED = BILL.fields["pending"][1] >> 3  # the first word that is


def make_bill() -> np.ndarray:
    """Return a bill with nothing on it, shape (1,)."""
    bill = np.zeros(1, BILL)
    bill["status"] = NONE
    return bill


def clear_bill(bill: np.ndarray) -> None:
    """Take everything from a bill that has been collected."""
    bill.view(np.int64)[_COLLECTED:] = 0


@leaf
def spend(bill, cycles):
    """Use cycles in the exit under way."""
    bill.spent += cycles
    bill.now += cycles


@leaf
def close(bill, reason, first):
    """End an exit; `first` says whether it was on the way to a page's first touch."""
    bill.cycles[reason] += bill.spent
    bill.first += bill.spent if first else 0
    bill.spent = 0
    bill.forget |= bill.each


@leaf
def log(bill, start):
    """Note how long a fault has taken since `start`; there must be room for one more latency."""
    latency = bill.now - start
    place = (latency ^ latency >> 7) & (LATENCIES - 1)
    while bill.times[place] and bill.latency[place] != latency:
        place = (place + 1) & (LATENCIES - 1)
    bill.logged += bill.times[place] == 0
    bill.latency[place] = latency
    bill.times[place] += 1


@overloaded
def handle(mode, guest, reason, gva, gpa, code):
    """Handle an exit as `Monitor.handle` does, as far as nobody has to wait.

    Parameters
    ----------
    mode, guest : NamedTuple
        The paging mode's state and the guest kernel's, which has the vCPU's bill.
    reason, gva, gpa, code : int
        As of `Exit`.

    Returns
    -------
    bool
        Whether the guest goes on. Else it is `Monitor.handle`'s, from the bill's status on.
    """
    return False


@overloaded
def reserve_fault(guest, mode, gva, code):
    """Have the guest's kernel take what it needs for a page fault, and find out whether somebody has to wait for more.

    Returns
    -------
    int
        Tables taken, and `commit_fault` is to follow; negative: the fault is not as simple as that, and nothing taken.
    """
    return np.int64(-1)


@overloaded
def commit_fault(guest, mode, gva, code, missing):
    """Have the guest's kernel handle a page fault for which `reserve_fault` has taken so many tables."""


@overloaded
def spare(mode, gfn, count):
    """Return whether software may write over frame `gfn` and others, `count` in all, and nobody waits or is told."""
    return True


@overloaded
def touch(mode, bill, gfn):
    """Write to a guest frame, which exits and is backed first if it never was; `spare` has said that this can be."""


@overloaded
def load(mode, bill, places, values):
    """Have the guest's kernel load entries, int64[n] gpas, where loads trap; the values are not asked for."""


@overloaded
def store(mode, bill, places, values):
    """Have the guest's kernel store entries, int64[n] gpas and values, where stores trap."""
