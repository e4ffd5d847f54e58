"""A guest's accesses to its hidden tables under a shadow monitor, and its INVLPGs: what each exit does and costs.

Each is written once, as a routine that the loop calls which runs the guest. The kernels here are the same for the
monitor's process, where what is done has to wait in between.
"""

from __future__ import annotations

import numpy as np

from vmsim.contracts.commit import spend
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import PAGE_SHIFT, WRITE
from vmsim.machine.memory import find_entry, read_word, write_word
from vmsim.monitor.shadow.fill import Status
from vmsim.monitor.shadow.guards import direct_reads, guarded, is_directory
from vmsim.monitor.shadow.prices import Exit
from vmsim.monitor.shadow.records import Work
from vmsim.monitor.shadow.software_tlb import drop_pages, look_up
from vmsim.monitor.shadow.state import end, told, work
from vmsim.monitor.shadow.tables import drop_tables
from vmsim.monitor.shadow.traps import invalidated
from vmsim.monitor.shadow.traps import load as load_hidden
from vmsim.monitor.shadow.traps import store as store_hidden
from vmsim.tables.backing import shared

__all__ = [
    "access_hidden",
    "invalidate_pages",
    "load_entries",
    "note_store",
    "note_stores",
    "overwrite",
    "shadow_invalidate",
    "shadow_load",
    "shadow_store",
    "store_entries",
]


@routine
def _find(mode, gfns, times):
    """Return what the walks to tables cost, so many times each, in the map that the kernel has of all memory."""
    state, tlb, each = mode.tables.states[0], mode.tlb[0], mode.prices[0].each_read
    cycles = np.int64(0)
    for gfn in gfns:  # that map is one more address space's worth of pages
        for _ in range(times):
            cycles += look_up(tlb, mode.found, -1 - gfn, direct_reads(state, gfn) * each)
    return cycles


@leaf
def _step(mode, bill, count):
    """Pay for the second exits of accesses that are stepped over."""
    if mode.prices[0].stepped:
        cycles = count * mode.prices[0].debug
        bill.exits[Exit.DEBUG] += count
        bill.cycles[Exit.DEBUG] += cycles
        bill.first += 0 if bill.calling else cycles
        bill.now += cycles


@routine
def _trap(mode, bill, reason, gfns, times):
    """Pay for accesses to hidden tables that were emulated or stepped; an exit each, with a second for a step.

    Each of the guest frames is accessed so many times.
    """
    count = len(gfns) * times
    spend(bill, count * mode.prices[0].emulated + _find(mode, gfns, times))
    bill.exits[reason] += count
    _step(mode, bill, count)


@routine
def _leave(mode, bill, gfns, times):
    """Pay for stores after which their tables are left to the guest, an exit each; `gfns`, `times` as of `_trap`."""
    count = len(gfns) * times
    spend(bill, count * mode.prices[0].left + _find(mode, gfns, times))
    bill.exits[Exit.PT_WRITE] += count


@routine
def _permit(nested, gfn):
    """Let a frame be written to by its nested entry, if a small one maps it."""
    root, levels = nested.nested[0].root, nested.nested[0].levels
    place, level = find_entry(nested.memory, root, levels, np.int64(1), gfn << PAGE_SHIFT)
    entry = read_word(nested.memory, place)
    if level == 1 and entry and not shared(nested.backing, gfn):
        write_word(nested.memory, place, entry | WRITE)


@routine
def note_store(mode, bill, gfn):
    """Note a store of the guest's kernel in the dirty log: its map of all memory is not walked for it.

    A frame that is protected exits, but for a table, whose stores exit anyway.
    """
    tables, prices, dirty = mode.tables, mode.prices[0], mode.tables.dirty
    if gfn >= len(dirty) or dirty[gfn]:
        return
    dirty[gfn] = True
    if mode.nested.nested[0].levels:
        _permit(mode.nested, gfn)
    if not guarded(tables.pages, tables.gfns, gfn):
        reads = direct_reads(tables.states[0], gfn) * prices.each_read
        spend(bill, prices.fault + tables.states[0].prices[Work.FILLED] + reads)
        bill.exits[Exit.WRITE_PROTECT] += 1
        prices.noted += 1
        end(bill, tables, Exit.WRITE_PROTECT, True)


@routine
def _note(mode, bill, places):
    for number in range(len(places)):
        note_store(mode, bill, places[number] >> PAGE_SHIFT)


@kernel
def note_stores(mode, bills, places):
    """Note stores of the guest's kernel in the dirty log, to gpas, int64[n]."""
    _note(mode, bills[0], places)


@routine
def _load(mode, bill, places, values, trapped):
    count = load_hidden(mode.tables, places, values, trapped)
    if count:
        _trap(mode, bill, Exit.PT_READ, trapped[:count], np.int64(1))
        work(mode, bill)
        end(bill, mode.tables, Exit.PT_READ, True)


@routine
def shadow_load(mode, bill, places, values):
    """Load entries; those of tables hidden from loads trap."""
    _load(mode, bill, places, values, mode.prices[0].trapped)


@kernel
def load_entries(mode, bills, places, values, trapped):
    """Do the same; `trapped` is scratch, as long as `places`."""
    _load(mode, bills[0], places, values, trapped)


@routine
def _store(mode, bill, places, values, start, trapped):
    if mode.tables.states[0].logging:
        _note(mode, bill, places)
    status, after, emulated, left = store_hidden(mode.tables, places, values, start, trapped)
    if emulated:
        _trap(mode, bill, Exit.PT_WRITE, trapped[:emulated], np.int64(1))
    if left:
        _leave(mode, bill, trapped[len(trapped) - left :], np.int64(1))
    if status == Status.APPEARED:
        bill.pending = 1
    elif emulated or left:
        work(mode, bill)
        end(bill, mode.tables, Exit.PT_WRITE, True)
    return status, after


@routine
def shadow_store(mode, bill, places, values):
    """Store entries of tables that the host backs; those of hidden tables trap."""
    _store(mode, bill, places, values, np.int64(0), mode.prices[0].trapped)


@kernel
def store_entries(mode, bills, places, values, start, trapped):
    """Store entries from number `start` on; `trapped` is scratch, as long as `places`.

    Returns
    -------
    (status, next) : tuple of int
        As of `traps.store`. With APPEARED the exit is not over.
    """
    return _store(mode, bills[0], places, values, start, trapped)


@kernel
def overwrite(mode, bills, gfn, count, most):
    """Give up the shadows of the guest frames [gfn, gfn + count), which the guest's kernel writes all over.

    Stores to a table that the monitor still guards trap until it guards it no more, after `most` of them.
    """
    state, bill, place = mode.tables.states[0], bills[0], mode.prices[0].trapped[:1]
    emulated, left, directories = drop_tables(mode.tables, gfn, count)
    if emulated == 0 and left == 0:
        return
    place[0] = gfn
    if emulated:
        _trap(mode, bill, Exit.PT_WRITE, place, emulated * most)
    if left:
        _leave(mode, bill, place, left)
    state.trapped[0] += (emulated - directories) * most + left
    state.trapped[1] += directories * most
    work(mode, bill)
    end(bill, mode.tables, Exit.PT_WRITE, True)


@kernel
def access_hidden(mode, bills, gfn, write, times):
    """Make a program's accesses to a page that is a hidden table, one exit each, of which the fault is one."""
    bill, prices, tables = bills[0], mode.prices[0], mode.tables
    prices.programs[is_directory(tables.pages, tables.gfns, gfn)] += times
    reason = np.int64(Exit.PT_WRITE if write else Exit.PT_READ)
    walk = tables.states[0].reads * prices.each_read
    spend(bill, (times - 1) * (prices.fault + walk) + times * (prices.emulated - prices.fault))
    bill.exits[reason] += times
    _step(mode, bill, times)
    end(bill, tables, reason, True)


@routine
def shadow_invalidate(mode, bill, first, last, order):
    """Bring what INVLPGs name into step: each is an exit, of a page of 2**order frames."""
    pages = (last >> PAGE_SHIFT) - (first >> PAGE_SHIFT) + 1
    times = (last >> (PAGE_SHIFT + order)) - (first >> (PAGE_SHIFT + order)) + 1
    spend(bill, times * mode.prices[0].other)
    invalidated(mode.tables, first, last)
    drop_pages(mode.tlb[0], mode.found, first >> PAGE_SHIFT, pages)
    told(mode.tables)
    work(mode, bill)
    bill.exits[Exit.INVLPG] += times
    end(bill, mode.tables, Exit.INVLPG, True)


@kernel
def invalidate_pages(mode, bills, first, last, order):
    """Do the same to pages of 2**order frames."""
    shadow_invalidate(mode, bills[0], first, last, order)
