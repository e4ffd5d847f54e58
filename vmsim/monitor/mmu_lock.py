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
kept instead, as intervals, and who comes first in simulated time has it first, whoever is simulated first. Who came
later, but was simulated before, has it so much later then: it owes that wait, and waits the next time that it wants
the lock. So waits are those of a queue, first come, first served, however far vCPUs run ahead; what is still owed at
the end is left out.

Who takes it or gives it back writes to its cache line, and first gets that from whoever wrote to it last. Those who
take it to read wait for each other there: the line goes to one at a time (include/asm-generic/qrwlock.h,
`queued_read_lock` and `queued_read_unlock`, an atomic addition each). A vCPU that is the only one to use the lock has
its line already. Of others it is known how far they have come but for the horizon, so that one that had the line up to
a horizon before the last use counts as having had it since.

Where each page of a VM is found by a fault of the host's, that takes a lock of the address space of the VM's process to
read, whose line is like this one: mmap_lock, or since Linux 6.4 that of the region (virt/kvm/kvm_main.c,
`hva_to_pfn_slow`; mm/gup.c; arch/arm64/kvm/mmu.c, `user_mem_abort`). Who holds that to write is not simulated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.ledger import Ledger
from vmsim.jit import kernel, routine
from vmsim.scenario.types import MAX_VCPUS

__all__ = ["NO_LOCK", "MmuLock", "fault_lock", "find_lock", "own_lock"]

_ROOM = 512  # intervals that are kept: of one horizon, and more
_HOST = MAX_VCPUS  # as who holds a lock
_IN_A_ROW = 64  # that one batch of the host's adds: of what comes later nothing is foreseen
_ALL = 3  # records where lines cost anything: the lock, its own line, that of the process's
_NEVER = -(1 << 62)

LOCK = np.dtype(
    (
        np.record,
        [
            ("count", "i8"),  # of the intervals
            ("waits", "i8"),
            ("cycles", "i8"),  # of those
            ("calls", "i8"),
            ("came", "i8", (_ROOM,)),  # when each was wanted
            ("start", "i8", (_ROOM,)),  # from when it is held, ascending; none overlaps the next
            ("end", "i8", (_ROOM,)),
            ("who", "i8", (_ROOM,)),  # number of the vCPU; _HOST
            ("owed", "i8", (_HOST + 1,)),  # by who it is: cycles that it has still to wait
            ("moved", "i8", (_HOST + 1,)),  # the call that has last had it wait
            ("transfer", "i8"),  # cycles until who writes to its line has that from another; 0: it costs nothing
            ("slack", "i8"),  # cycles that one vCPU may be ahead of another
            ("transfers", "i8"),
            ("last", "i8", (MAX_VCPUS,)),  # cycle at which each vCPU had the line last
            ("latest", "i8"),  # the vCPU that had it at the latest time
            ("second", "i8"),  # the latest of the others
        ],
    )
)
NO_LOCK = np.zeros(0, LOCK)  # of a VM of one vCPU, and of monitors that have none


@routine
def _behind(lock, at):
    """Return the place behind the last interval that was wanted by `at`."""
    place = lock.count
    while place > 0 and lock.came[place - 1] > at:
        place -= 1
    return place


@routine
def _insert(lock, place, who, came, start, end):
    """Keep one more interval at a place; return the place that it has then, -1: it is older than all that are kept."""
    if lock.count == _ROOM:  # the oldest is forgotten
        place -= 1
        for number in range(place):
            lock.came[number] = lock.came[number + 1]
            lock.start[number] = lock.start[number + 1]
            lock.end[number] = lock.end[number + 1]
            lock.who[number] = lock.who[number + 1]
    else:
        for number in range(lock.count, place, -1):
            lock.came[number] = lock.came[number - 1]
            lock.start[number] = lock.start[number - 1]
            lock.end[number] = lock.end[number - 1]
            lock.who[number] = lock.who[number - 1]
        lock.count += 1
    if place >= 0:
        lock.came[place] = came
        lock.start[place] = start
        lock.end[place] = end
        lock.who[place] = who
    return place


@routine
def _make_way(lock, later, free):
    """Have those from a place on have the lock no sooner than it is `free`; each of these owes its first delay.

    By that it comes later again: no delay is counted twice.
    """
    lock.calls += 1
    while later < lock.count and lock.start[later] < free:
        delay, who = free - lock.start[later], lock.who[later]
        if lock.moved[who] == lock.calls:
            lock.came[later] += delay
        else:
            lock.moved[who] = lock.calls
            lock.owed[who] += delay
            lock.waits += 1
        lock.start[later] += delay
        lock.end[later] += delay
        free = lock.end[later]
        later += 1


@routine
def hold_lock(lock, at, cycles, who):
    """Hold the lock for so many cycles from `at` on, or from when those who came before are done; return the wait.

    Parameters
    ----------
    lock : LOCK
        The VM's.
    at, cycles : int
        Cycles of simulated time; with 0 of them it is not taken.
    who : int
        Number of the vCPU, or `_HOST`: what it owes it waits now.
    """
    if cycles == 0:
        return np.int64(0)
    wait = lock.owed[who]
    lock.owed[who] = 0
    at += wait
    place = _behind(lock, at)
    begin = at
    if place > 0:
        begin = max(begin, lock.end[place - 1])
    lock.waits += begin > at
    wait += begin - at
    lock.cycles += wait
    _make_way(lock, _insert(lock, place, who, at, begin, begin + cycles) + 1, begin + cycles)
    return wait


@routine
def _pass_lock(lock, at):
    """Have the lock to read, from `at` on or from when nobody has it to write; return the wait until then."""
    place = _behind(lock, at)
    wait = np.int64(0)
    if place > 0:
        wait = max(wait, lock.end[place - 1] - at)
    lock.waits += wait > 0
    lock.cycles += wait
    return wait


@routine
def _had_by_another(lock, who):
    """Return when a vCPU other than `who` has last had the line, if that is since `who` had it, as far as is known."""
    other = lock.second if lock.latest == who else lock.latest
    if other != who and lock.last[other] >= lock.last[who] - lock.slack:
        return lock.last[other]
    return np.int64(_NEVER)


@routine
def _note_line(lock, at, who):
    """Note that a vCPU has the line at `at`."""
    lock.last[who] = max(lock.last[who], at)
    if lock.latest == who:
        return
    if lock.last[who] >= lock.last[lock.latest]:
        lock.second = lock.latest
        lock.latest = who
    elif lock.second == lock.latest or lock.last[who] >= lock.last[lock.second]:
        lock.second = who


@routine
def own_lock(lock, at, cycles, who):
    """Hold the lock for so many cycles, and for as long as a vCPU needs to get its line; return what it takes longer.

    Parameters
    ----------
    lock, at, cycles
        As of `hold_lock`.
    who : int
        Number of the vCPU.
    """
    if cycles == 0:
        return np.int64(0)
    if lock.transfer == 0:
        return hold_lock(lock, at, cycles, who)
    fetch = lock.transfer if _had_by_another(lock, who) != _NEVER else np.int64(0)
    lock.transfers += fetch > 0
    longer = hold_lock(lock, at, cycles + fetch, who) + fetch
    _note_line(lock, at + longer, who)
    return longer


@routine
def _get_line(line, at, who):
    """Have the line brought from another, when it is nobody else's turn; return the cycles of it."""
    line.transfers += 1
    return hold_lock(line, at, line.transfer, who) + line.transfer


@routine
def _share_line(line, at, cycles, who):
    """Write to the line at `at`, and again when the lock is given back, cycles later; return what that takes longer.

    It is here still then, unless others are known to have had it meanwhile, or are to be expected: they have had it
    before for no longer ago than that.
    """
    longer, expected = np.int64(0), False
    if line.transfer == 0:
        return longer
    had = _had_by_another(line, who)
    if had != _NEVER:
        longer = _get_line(line, at, who)
        expected = longer > line.transfer or abs(at - had) <= cycles
    _note_line(line, at + longer, who)
    back = at + longer + cycles
    place = _behind(line, back)
    if expected or (place > 0 and line.end[place - 1] > at + longer):
        longer += _get_line(line, back, who)
        _note_line(line, at + longer + cycles, who)
    return longer


@routine
def fault_lock(locks, reads, at, cycles, who):
    """Have the lock for a fault, to read or alone; return what the fault takes longer for it.

    Parameters
    ----------
    locks : LOCK[:]
        The VM's: the lock; where lines cost anything, its own line for those who take it to read, and that of the
        process's lock.
    reads : bool
    at, cycles : int
        From when on, and for how long.
    who : int
        Number of the vCPU.
    """
    if len(locks) == 0:
        return np.int64(0)
    if not reads:
        return own_lock(locks[0], at, cycles, who)
    wait = _pass_lock(locks[0], at)
    if len(locks) > 1:
        wait += _share_line(locks[1], at + wait, cycles, who)
    return wait


@routine
def find_lock(locks, at, cycles, who):
    """Have the lock of the process to read, while a page is found for it; return what that takes longer for its line.

    The parameters are those of `fault_lock`.
    """
    if len(locks) < _ALL:
        return np.int64(0)
    return _share_line(locks[2], at, cycles, who)


@kernel
def _hold_each(locks, at, cycles, times, apart):
    """Hold the lock so many times, for so many cycles each and as many `apart`; return all waits until it was free."""
    waits = np.int64(0)
    for _ in range(times):
        wait = hold_lock(locks[0], at, cycles, _HOST)
        waits += wait
        at += wait + cycles + apart
    return waits


@kernel
def _fault(locks, reads, at, cycles, who):
    """Have the lock for a fault that no compiled code handles."""
    return fault_lock(locks, reads, at, cycles, who)


@kernel
def _find(locks, at, cycles, who):
    """Have that of the process for one."""
    return find_lock(locks, at, cycles, who)


class MmuLock:
    """The lock of one VM, for code that is not compiled.

    Parameters
    ----------
    vcpus : int
        Of the VM; of one nobody waits for another, and nothing is kept.
    shared : bool
        Whether faults take it to read.
    transfer : int, optional
        Cycles until a vCPU has a lock's cache line from another.
    finds : bool, optional
        Whether each page is found by a fault of the host's, under the lock of the VM's process.
    horizon : int, optional
        Cycles that a vCPU may be ahead of another.
    """

    def __init__(
        self, vcpus: int = 1, *, shared: bool = False, transfer: int = 0, finds: bool = False, horizon: int = 0
    ) -> None:
        self.words: NDArray[Any] = np.zeros(_ALL if transfer else 1, LOCK) if vcpus > 1 else NO_LOCK
        self.words["last"] = _NEVER
        self.words["slack"] = horizon
        self.words["transfer"] = (transfer, transfer, transfer if finds else 0)[: len(self.words)]
        self.shared = shared

    def __bool__(self) -> bool:
        return len(self.words) > 0

    def hold(self, at: int, cycles: int) -> int:
        """Have the host hold it for so many cycles from `at` on; return the wait until it is free."""
        return int(_hold_each(self.words, at, cycles, 1, 0)) if self else 0

    def hold_each(self, at: int, cycles: int, times: int, *, apart: int) -> int:
        """Hold it so many times, for so many cycles each and as many `apart`; return all waits until it was free."""
        return int(_hold_each(self.words, at, cycles, min(times, _IN_A_ROW), apart)) if self else 0

    def fault(self, at: int, cycles: int, who: int, *, finding: int = 0) -> int:
        """Have it for a vCPU's fault of so many cycles, once a page is found; return what that takes longer for it."""
        if not self:
            return 0
        return int(_fault(self.words, self.shared, at + finding, max(cycles - finding, 0), who))

    def find(self, at: int, cycles: int, who: int) -> int:
        """Have that of the process while the host finds a page; return what that takes longer for its line."""
        return int(_find(self.words, at, cycles, who)) if len(self.words) == _ALL else 0

    def register(self, ledger: Ledger) -> None:
        """Say how often it was waited for, and how long; and how often its line went from one vCPU to another."""
        if not self:
            return
        words = self.words

        def figures() -> dict[str, int]:
            waits = {"waits": int(words["waits"][0]), "cycles": int(words["cycles"][0])}
            return waits | ({"transfers": int(words["transfers"].sum())} if words["transfer"][0] else {})

        ledger.counters("mmu_lock", figures)
