"""KVM's mmu_lock: of the vCPUs of one VM, one at a time changes the tables that they share, and the others wait.

Since Linux 5.12 it is an rwlock (arch/x86/include/asm/kvm_host.h, KVM_HAVE_MMU_RWLOCK), before that a spinlock. A fault
that the TDP MMU handles takes it to read, and does not wait for others of its kind (arch/x86/kvm/mmu/mmu.c,
`kvm_tdp_mmu_page_fault`); one of the older MMU, and of every shadow, takes it to write (`direct_page_fault`,
paging_tmpl.h, `FNAME(page_fault)`), as do emulated stores, INVLPG, loads of CR3 and whoever reads a dirty log
(`kvm_mmu_track_write`, `kvm_mmu_invalidate_addr`, `kvm_mmu_load`, virt/kvm/kvm_main.c, `kvm_get_dirty_log_protect`).
So does the host, each time that it takes, moves or shares pages: entries are cleared, and the vCPUs that run leave the
guest, before it is released (virt/kvm/kvm_main.c, `kvm_mmu_notifier_invalidate_range_start`, whose
`__kvm_handle_hva_range` flushes under the lock); and where large pages that cannot be executed are recovered
(mmu.c, `kvm_recover_nx_huge_pages`).
It is held while entries are written, not while the guest's tables are walked or a page is found
(`kvm_faultin_pfn`); the faults of pages that are only protected against writes need none (`fast_page_fault`).

A vCPU runs ahead of the others within the horizon, so that there is no one moment at which it is held. Its times are
kept instead, as intervals, and whoever wants it has the first gap that is long enough. In what order those who want it
at nearly the same time have it is that in which they are simulated; no two have it at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.ledger import Ledger
from vmsim.jit import kernel, routine

__all__ = ["NO_LOCK", "MmuLock", "hold_lock", "pass_lock"]

_ROOM = 256  # intervals that are kept: of one horizon, and more
_IN_A_ROW = 64  # that one batch of the host's adds: of what comes later nothing is foreseen

LOCK = np.dtype(
    (
        np.record,
        [
            ("count", "i8"),  # of the intervals
            ("waits", "i8"),
            ("cycles", "i8"),  # of those
            ("start", "i8", (_ROOM,)),  # of each, ascending; none touches the next
            ("end", "i8", (_ROOM,)),
        ],
    )
)
NO_LOCK = np.zeros(0, LOCK)  # of a VM of one vCPU, and of monitors that have none


@routine
def _note(lock, wait):
    """Count a wait, if it is one; return it."""
    lock.waits += wait > 0
    lock.cycles += wait
    return wait


@routine
def _first_after(lock, at):
    """Return the first interval that begins after `at`."""
    place = lock.count
    while place > 0 and lock.start[place - 1] > at:
        place -= 1
    return place


@routine
def hold_lock(lock, at, cycles):
    """Hold the lock for so many cycles from `at` on, or from when it is free for as long; return the wait until then.

    Parameters
    ----------
    lock : LOCK
        The VM's.
    at, cycles : int
        Cycles of simulated time; with 0 of them it is not taken.
    """
    if cycles == 0:
        return np.int64(0)
    place = _first_after(lock, at)
    begin = at
    if place > 0:
        begin = max(begin, lock.end[place - 1])
    while place < lock.count and lock.start[place] < begin + cycles:
        begin = max(begin, lock.end[place])
        place += 1
    end = begin + cycles
    joins = place < lock.count and lock.start[place] == end
    if place > 0 and lock.end[place - 1] == begin:
        lock.end[place - 1] = lock.end[place] if joins else end
        if joins:
            lock.count -= 1
            for number in range(place, lock.count):
                lock.start[number] = lock.start[number + 1]
                lock.end[number] = lock.end[number + 1]
        return _note(lock, begin - at)
    if joins:
        lock.start[place] = begin
        return _note(lock, begin - at)
    if lock.count == _ROOM:  # the oldest is forgotten
        if place > 0:
            place -= 1
            for number in range(place):
                lock.start[number] = lock.start[number + 1]
                lock.end[number] = lock.end[number + 1]
    else:
        for number in range(lock.count, place, -1):
            lock.start[number] = lock.start[number - 1]
            lock.end[number] = lock.end[number - 1]
        lock.count += 1
    lock.start[place] = begin
    lock.end[place] = end
    return _note(lock, begin - at)


@routine
def pass_lock(lock, at):
    """Have the lock to read, from `at` on or from when nobody has it to write; return the wait until then."""
    place = _first_after(lock, at)
    if place > 0 and lock.end[place - 1] > at:
        return _note(lock, lock.end[place - 1] - at)
    return np.int64(0)


@kernel
def _hold_each(locks, at, cycles, times, apart):
    """Hold the lock so many times, for so many cycles each and as many `apart`; return all waits until it was free."""
    waits = np.int64(0)
    for _ in range(times):
        wait = hold_lock(locks[0], at, cycles)
        waits += wait
        at += wait + cycles + apart
    return waits


class MmuLock:
    """The lock of one VM, for code that is not compiled.

    Parameters
    ----------
    vcpus : int
        Of the VM; of one nobody waits for another, and nothing is kept.
    shared : bool
        Whether faults take it to read.
    """

    def __init__(self, vcpus: int = 1, *, shared: bool = False) -> None:
        self.words: NDArray[Any] = np.zeros(1, LOCK) if vcpus > 1 else NO_LOCK
        self.shared = shared

    def __bool__(self) -> bool:
        return len(self.words) > 0

    def hold(self, at: int, cycles: int) -> int:
        """Hold it for so many cycles from `at` on; return the wait until it is free."""
        return int(_hold_each(self.words, at, cycles, 1, 0)) if self else 0

    def hold_each(self, at: int, cycles: int, times: int, *, apart: int) -> int:
        """Hold it so many times, for so many cycles each and as many `apart`; return all waits until it was free."""
        return int(_hold_each(self.words, at, cycles, min(times, _IN_A_ROW), apart)) if self else 0

    def fault(self, at: int, cycles: int) -> int:
        """Have it for a fault, as its kind does; return the wait."""
        if not self.shared or not self:
            return self.hold(at, cycles)
        return int(pass_lock(self.words[0], at))

    def register(self, ledger: Ledger) -> None:
        """Say how often it was waited for, and how long."""
        if self:
            words = self.words
            ledger.counters("mmu_lock", lambda: {"waits": int(words["waits"][0]), "cycles": int(words["cycles"][0])})
