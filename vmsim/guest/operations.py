"""System calls that wait for nobody, compiled: mmap, munmap, mprotect and madvise of ranges of small pages.

`MemoryCalls` and `AddressSpaces` say what each is and costs, and do what is not done here: what is longer, needs a
table that the host has taken, or concerns a process or a CPU that does not run. First is found out whether all can be
done, and only then is anything.
"""

from __future__ import annotations

import numpy as np

from vmsim.contracts.commit import (
    ROOM,
    Call,
    enter_kernel,
    finish,
    flushes,
    invalidate,
    load,
    operate,
    reserve_range,
    store,
)
from vmsim.frames.buddy import free
from vmsim.guest.commit import Guest
from vmsim.guest.demand import give_back
from vmsim.guest.region_rows import NO_REGION, RIGHTS_OF, around, declare, of_mapping, remove, room_for
from vmsim.guest.region_rows import WRITE as WRITABLE
from vmsim.jit import leaf, routine
from vmsim.machine.flush import forget_pages, forget_space
from vmsim.machine.formats import FRAME, PAGE_SHIFT, PRESENT, WRITE
from vmsim.machine.memory import width_of, write_entry
from vmsim.machine.tlb import ASID_SHIFT
from vmsim.tables.backing import host_address
from vmsim.tables.copies import drop_frames
from vmsim.tables.listing import scan_entries

__all__ = ["COLUMNS", "FLUSH_CEILING"]

COLUMNS = 5  # of `Guest.columns`
FLUSH_CEILING = 33  # INVLPGs above which Linux flushes all instead (tlb_single_page_flush_ceiling)
_STARTS, _SIZES, _PLACES, _VALUES, _NEW = range(COLUMNS)


@routine
def _is_done_here(guest, mode, operation):
    """Return whether an operation is of a kind, and of a size, that is done here, by a kernel that may do it."""
    demand = guest.demands[0]
    if demand.operates == 0 or operation.pid != demand.pid or not room_for(guest.regions):
        return False
    if operation.call == Call.OTHER:
        return False
    if operation.call == Call.PROTECT:
        _, end, rights = around(guest.regions, operation.first)
        if end < operation.limit or (rights != NO_REGION and rights & ~RIGHTS_OF):
            return False
    pages = (operation.limit - operation.first) >> PAGE_SHIFT
    if pages > ROOM >> 1 or (pages > FLUSH_CEILING and not flushes(mode)):
        return False
    return pages <= 0 or reserve_range(mode, operation.first, operation.limit)


@routine
def _list(guest, operation):
    """List the entries that the kernel loads; return how many, or -1 where it would have to wait.

    As `EntryLists.scan` and `clear` load them: those of a region that maps nothing as well, where loads trap.
    """
    demand, columns = guest.demands[0], guest.columns
    if operation.first >= operation.limit:
        return np.int64(0)
    stop, count = scan_entries(
        guest.memory, demand.root, demand.levels, guest.backing, operation.first, operation.first, operation.limit,
        demand.loads != 0, columns[_PLACES], columns[_VALUES], columns[_STARTS], columns[_SIZES],
    )  # fmt: skip
    if stop != operation.limit:
        return np.int64(-1)
    for number in range(count if demand.batch == 0 else 0):
        page = (columns[_VALUES, number] & FRAME) >> PAGE_SHIFT
        if columns[_SIZES, number] and guest.frames[page].owner != demand.owner:  # the host has others share it
            return np.int64(-1)
    return count


@leaf
def _keep_pages(columns, count):
    """Leave of the entries those that map pages; return how many they are."""
    kept = np.int64(0)
    for number in range(count):
        if columns[_SIZES, number]:
            for column in range(_NEW):
                columns[column, kept] = columns[column, number]
            kept += 1
    return kept


@leaf
def _new_values(guest, count, call, rights):
    """Find what is to be stored; return the first and the last entry that processors must forget, or -1 twice."""
    columns, more = guest.columns, guest.more
    first = np.int64(-1)
    last = np.int64(-1)
    for number in range(count):
        value = columns[_VALUES, number]
        new = np.int64(0)
        if call == Call.PROTECT:
            new = value & ~(PRESENT | WRITE) | (PRESENT if rights else 0)
            if rights & WRITABLE and (len(more) == 0 or more[(value & FRAME) >> PAGE_SHIFT] == 0):
                new |= WRITE
        columns[_NEW, number] = new
        if call != Call.PROTECT or value & ~new & (PRESENT | WRITE):
            first = number if first < 0 else first
            last = np.int64(number)
    return first, last


@routine
def _store(guest, mode, count):
    """Store the new values."""
    demand, columns = guest.demands[0], guest.columns
    if demand.traps:
        store(mode, guest.bills[0], columns[_PLACES, :count], columns[_NEW, :count])
        return
    width = width_of(demand.levels)
    for number in range(count):
        write_entry(guest.memory, host_address(guest.backing, columns[_PLACES, number]), columns[_NEW, number], width)


@routine
def _flush(guest, mode, words, units, asid, first, last):
    """Have the processor forget the pages of some entries, or all of the space where that is quicker (Linux)."""
    columns, bill = guest.columns, guest.bills[0]
    low = columns[_STARTS, first]
    high = columns[_STARTS, last] + (1 << PAGE_SHIFT)
    bill.flushes += 1
    bill.forgot = 1
    if (high - low) >> PAGE_SHIFT > FLUSH_CEILING:
        forget_space(words, units, asid[0] >> ASID_SHIFT)
        return
    forget_pages(words, units, asid[0] >> ASID_SHIFT, low, high - 1)
    invalidate(mode, bill, low, high - 1)


@routine
def _free(guest, count):
    """Free the frames of pages that nobody maps any more."""
    pages = guest.columns[_NEW, :count]
    for number in range(count):
        pages[number] = (guest.columns[_VALUES, number] & FRAME) >> PAGE_SHIFT
    alone = drop_frames(guest.more, pages) if len(guest.more) else count
    if guest.demands[0].batch:
        give_back(guest.zones, guest.frames, guest.ready, pages[:alone])
        return
    for number in range(alone):  # they are the host's, and free at once
        free(guest.zones, guest.frames, pages[number], np.int64(0))
    guest.bills[0].given += alone


@operate.register(Guest)
@routine
def _operate(guest, mode, words, units, asid, operation):
    """Change what a range maps, and what its pages may be used for."""
    if not _is_done_here(guest, mode, operation):
        return False
    if guest.demands[0].batch == 0 and guest.bills[0].now >= guest.bills[0].quiet:
        guest.bills[0].unsettled = 1  # it may free frames of the host's
        return False
    count = _list(guest, operation)
    if count < 0:
        return False
    demand, bill, columns = guest.demands[0], guest.bills[0], guest.columns
    call = operation.call
    bill.calling = 1
    enter_kernel(mode, bill)
    if demand.loads and count:
        load(mode, bill, columns[_PLACES, :count], columns[_VALUES, :count])
    count = _keep_pages(columns, count)
    first, last = _new_values(guest, count, call, operation.argument)
    if count:
        _store(guest, mode, count)
    if first >= 0:
        _flush(guest, mode, words, units, asid, first, last)
    cycles = count * (demand.each_edit if call == Call.PROTECT else demand.each_page)
    bill.kernel += cycles
    bill.now += cycles
    if call != Call.PROTECT:
        _free(guest, count)
    if call == Call.MAP:
        declare(guest.regions, operation.first, operation.limit, of_mapping(operation.argument, operation.first))
    elif call == Call.PROTECT:
        declare(guest.regions, operation.first, operation.limit, operation.argument)
    elif call == Call.UNMAP:
        remove(guest.regions, operation.first, operation.limit)
    demand.last = demand.first  # what may be mapped there is to be looked up again
    finish(mode, bill)
    bill.calling = 0
    return True
