"""A guest frame gets a page of its monitor's pool, and nobody waits: the commit of it, compiled, for every mode.

Nested tables, where a monitor has some, get an entry that maps it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.contracts import NEVER, SwapPlace
from vmsim.contracts.commit import LATENCIES, close, log, spend
from vmsim.contracts.faults import FaultKind
from vmsim.frames.records import State
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import ENTRIES, FRAME, PAGE_SHIFT, WRITE
from vmsim.machine.memory import find_entry, read_word, write_word
from vmsim.monitor.mmu_lock import fault_lock, find_lock
from vmsim.tables.backing import CACHED, CLEAN_PAGE, lacks, set_backing, shared
from vmsim.tables.edit import map_page, map_pages, missing_tables

__all__ = [
    "NESTED",
    "NestedMode",
    "back_around",
    "back_or_bring",
    "bring_cached",
    "can_back",
    "chunk_of",
    "fault_in",
    "make_nested",
    "map_frames",
    "note",
    "permit_write",
    "suffices",
    "touch_frame",
    "touch_frames",
]

_LEAF = np.int64(1)  # the level that maps small pages; a literal is a type of its own, and compiled for once more

# What a monitor backs a guest frame with, at which price.
NESTED = np.dtype(
    (
        np.record,
        [
            ("root", "i8"),  # hpa of the nested tables' root
            ("levels", "i8"),  # 0: there are none
            ("most", "i8"),  # pages that one frame takes at most: its own, and tables
            ("frames", "i8"),  # the guest's: those above do not exist
            ("page", "i8"),  # bits of an entry that maps a page
            ("table", "i8"),  # and of one that points to a table
            ("before", "i8"),  # cycles of an exit at a frame that the kernel writes to, until it asks the pool
            ("mapping", "i8"),  # until the entry is written
            ("each_table", "i8"),  # and for each table made
            ("resume", "i8"),  # from then on
            ("reason", "i8"),  # of that exit, among the monitor's
            ("locks", "i8"),  # 1: its entry is one that the VM's vCPUs share
            ("chunk", "i8"),  # frames that are backed together, aligned to as many
            ("order", "i8"),  # of the pages that the host is asked for: with large ones nothing is backed here
            ("logging", "i8"),  # 1: a page that becomes writable is in the dirty log
            ("protected", "i8"),  # cycles of an exit that makes it so
            ("finding", "i8"),  # cycles of backing a frame in which the MMU's lock is not held
            ("reads", "i8"),  # 1: faults take that lock to read
            ("least", "i8"),  # pages that must be left in the pool; NEVER: nothing is backed here
        ],
    )
)


class NestedMode(NamedTuple):
    """The pages of one VM, and its nested tables."""

    memory: np.ndarray  # int64[:], host-physical memory
    backing: np.ndarray  # int64[frames], where the guest's lies
    frames: np.ndarray  # FRAME_RECORD[:], the host's
    nested: np.ndarray  # NESTED[1]
    pool: np.ndarray  # int64[:], the monitor's pool (`Stack.words`)
    page: np.ndarray  # int64[1], scratch
    dirty: np.ndarray  # bool[frames], the dirty log: written to since it was read last; empty: there is none here
    lock: np.ndarray  # LOCK[1], of what the VM's vCPUs share; empty: nobody waits for it
    swap: np.ndarray  # int64[:], the host's swap (`contracts.SwapPlace`); empty: nothing comes back here


def make_nested(**fields: int) -> np.ndarray:
    """Return what a monitor backs frames with, shape (1,): the fields that are given."""
    nested = np.zeros(1, NESTED)
    nested["least"] = NEVER
    for name, value in fields.items():
        nested[name] = value
    return nested


@leaf
def suffices(mode, frames, pages):
    """Return whether so many guest frames can be backed, and so many pages taken besides, and nobody waits for it."""
    nested = mode.nested[0]
    return mode.pool[0] - frames * (nested.most + nested.chunk - 1) - pages >= nested.least


@leaf
def note(mode, gfn):
    """Note that a guest frame may be written to from now on."""
    if mode.nested[0].logging:
        mode.dirty[gfn] = True


@routine
def can_back(mode, gfn, count):
    """Return whether frame `gfn` and others, `count` in all, can be backed where they are not, and nobody waits."""
    nested = mode.nested[0]
    if count == 1 and gfn < nested.frames and not lacks(mode.backing, gfn):
        return True
    if nested.order:
        return False
    if suffices(mode, count, 0):
        return True
    if nested.levels == 0 or count > 1 or nested.chunk > 1 or gfn >= nested.frames or mode.backing[gfn]:
        return False
    none = mode.backing[:0]
    missing = missing_tables(mode.memory, nested.root, nested.levels, _LEAF, none, gfn << PAGE_SHIFT)
    return missing >= 0 and mode.pool[0] - 1 - missing >= nested.least


@kernel
def map_frames(mode, gfn, level, page, tables, bits):
    """Map a page, the first frame of which is `page`, by an entry of `level` around a guest frame: the commit of it.

    Parameters
    ----------
    mode : NestedMode
        The monitor's.
    gfn, level, page, bits : int
        Where, the level of the entry (1, 2, 3: of 4K, 2M, 1G), and what it has besides the page's address.
    tables : int64[n]
        Frames to make tables of.

    Returns
    -------
    int
        As of `tables.edit.map_page`: how many tables were made; if that is more than there are, nothing is done yet.
        0 where the monitor has no nested tables.
    """
    nested = mode.nested[0]
    if nested.levels == 0:
        mode.frames[page].state = State.GUEST
        return np.int64(0)
    memory, frames, none = mode.memory, mode.frames, mode.backing[:0]
    address = (gfn << PAGE_SHIFT) & -(1 << (3 + 9 * level))
    missing = map_page(memory, frames, nested.root, nested.levels, level, none, address, page, bits)
    if 0 < missing <= len(tables):
        mode.page[0] = page
        where = nested.root, nested.levels, level, none, address
        map_pages(memory, frames, *where, mode.page, tables, nested.table, bits)
    if 0 <= missing <= len(tables):
        frames[page].rmap = (address >> PAGE_SHIFT) + 1
    return missing


@leaf
def chunk_of(nested, gfn):
    """Return the first frame of the chunk of a frame, and the first after it: all of one table."""
    table = gfn & -ENTRIES
    first = gfn - (gfn - table) % nested.chunk
    return first, min(first + nested.chunk, table + ENTRIES, nested.frames)


@kernel
def back_around(mode, gfn, pages):
    """Back with `pages` (int64[n], as many as there are at most) the frames of the chunk of `gfn` that never were."""
    backing = mode.backing
    first, last = chunk_of(mode.nested[0], gfn)
    used = np.int64(0)
    for each in range(first, last):
        if backing[each] == 0:
            if used == len(pages):
                break
            map_frames(mode, each, _LEAF, pages[used], backing[:0], mode.nested[0].page)
            set_backing(backing, mode.frames, each, pages[used], np.int64(0))
            note(mode, each)
            used += 1


@routine
def back_frame(mode, gfn):
    """Back a frame that never was with a page of the pool, and its chunk; return the cycles until that is written.

    Returns -1, and has done nothing, where somebody must wait for the pool, or the host has a page of the frame's: one
    that lost its entry, or contents that are elsewhere.
    """
    nested = mode.nested[0]
    backing, pool = mode.backing, mode.pool
    if gfn >= nested.frames or backing[gfn] or nested.order:
        return np.int64(-1)
    level = pool[0]
    if level - nested.chunk < nested.least:
        return np.int64(-1)
    wanted = np.int64(0)
    if nested.chunk > 1:
        first, last = chunk_of(nested, gfn)
        for each in range(first, last):
            wanted += backing[each] == 0 and each != gfn
        if level - nested.most - wanted < nested.least:
            return np.int64(-1)
    room = min(level - 1 - nested.least, nested.levels)
    made = map_frames(mode, gfn, _LEAF, pool[level], pool[:0], nested.page)
    if made > room or made < 0:
        return np.int64(-1)
    if made:
        map_frames(mode, gfn, _LEAF, pool[level], pool[level - made : level], nested.page)
    set_backing(backing, mode.frames, gfn, pool[level], np.int64(0))
    note(mode, gfn)
    pool[0] = level - 1 - made - wanted
    if wanted:
        back_around(mode, gfn, pool[1 + pool[0] : 1 + pool[0] + wanted])
    return nested.mapping * (1 + wanted) + made * nested.each_table


@routine
def bring_back(mode, gfn, write):
    """Back a frame with the page of it that lies in the swap cache; return the cycles until that is written, or -1.

    A page that is to be read keeps its slot while no more than half of them are used, and may not be written to. What
    else is to be done then the host does when the run is over (`SwappedPages.brought`).
    """
    nested, backing, swap = mode.nested[0], mode.backing, mode.swap
    if len(swap) == 0 or gfn >= nested.frames or backing[gfn] & CACHED == 0:
        return np.int64(-1)
    count = swap[SwapPlace.BROUGHT]
    if nested.order or nested.chunk > 1 or SwapPlace.FIRST + count == len(swap):
        return np.int64(-1)
    keeps = not write and 2 * swap[SwapPlace.USED] <= swap[SwapPlace.SIZE]
    page = (backing[gfn] & FRAME) >> PAGE_SHIFT
    bits = nested.page & ~WRITE if keeps else nested.page
    if map_frames(mode, gfn, _LEAF, page, mode.pool[:0], bits) != 0:
        return np.int64(-1)
    set_backing(backing, mode.frames, gfn, page, np.int64(0))
    if keeps:
        backing[gfn] = backing[gfn] & FRAME | CLEAN_PAGE
    else:
        swap[SwapPlace.USED] -= 1
    swap[SwapPlace.FIRST + count] = gfn
    swap[SwapPlace.BROUGHT] = count + 1
    return nested.mapping - nested.finding + swap[SwapPlace.CYCLES]


@kernel
def bring_cached(mode, gfn, write):
    """Do the same for who has waited until the page was in the cache."""
    return bring_back(mode, gfn, write)


@leaf
def back_or_bring(mode, bill, gfn, write):
    """Do what of both can be done, and note which; return the cycles of it, or -1."""
    cycles = back_frame(mode, gfn)
    kind = np.int64(FaultKind.ZERO_FILL)
    if cycles < 0:
        cycles = bring_back(mode, gfn, write)
        kind = np.int64(FaultKind.SWAP_IN_MINOR)
    if cycles >= 0:
        bill.kind = max(bill.kind, kind)
    return cycles


@leaf
def lock_wait(mode, at, cycles, who, locks):
    """Return what a vCPU's fault takes longer for locks, which from `at` on backs a frame in so many cycles.

    `locks` says whether it takes the MMU's, and not the process's alone.
    """
    nested = mode.nested[0]
    longer = find_lock(mode.lock, at, nested.finding, who)
    if locks:
        at += longer + nested.finding
        longer += fault_lock(mode.lock, nested.reads != 0, at, max(cycles - nested.finding, 0), who)
    return longer


@routine
def fault_in(mode, bill, gfn, write, before, after, reason, locks):
    """Back a frame by an exit, of so many cycles until the host is asked and after it has answered.

    Parameters
    ----------
    write : bool
        It is about to be written to.
    reason : int
        The exit's, among the monitor's.
    locks : bool
        Whether the entry is one that the VM's vCPUs share.

    Returns
    -------
    bool
        Whether that could be done, and nobody had to wait for the pool.
    """
    cycles = back_or_bring(mode, bill, gfn, write)
    if cycles < 0:
        return False
    start = bill.now
    cycles += lock_wait(mode, bill.begun + start + before, cycles, bill.who, locks)
    spend(bill, before + cycles + after)
    bill.exits[reason] += 1
    close(bill, reason, True)
    log(bill, start)
    return True


@routine
def permit_write(mode, bill, gfn, reason):
    """Let a page be written to whose nested entry is protected for the dirty log, by an exit; return whether it was.

    `reason` is the exit's, among the monitor's.
    """
    nested, memory = mode.nested[0], mode.memory
    if nested.logging == 0 or nested.protected == 0:
        return False
    place, level = find_entry(memory, nested.root, nested.levels, _LEAF, gfn << PAGE_SHIFT)
    entry = read_word(memory, place)
    if level > 1 or entry == 0 or shared(mode.backing, gfn):
        return False
    start = bill.now
    write_word(memory, place, entry | WRITE)
    note(mode, gfn)
    spend(bill, nested.protected)
    bill.exits[reason] += 1
    close(bill, reason, False)
    log(bill, start)
    return True


@routine
def touch_frame(mode, bill, gfn):
    """Write to a guest frame, as its kernel does: if it has no host frame, that is an exit; return whether it has one.

    In every mode this is how the kernel's own writes come to be backed.
    """
    nested = mode.nested[0]
    if not lacks(mode.backing, gfn):
        return True
    return fault_in(mode, bill, gfn, True, nested.before, nested.resume, nested.reason, nested.locks != 0)


@kernel
def touch_frames(mode, bills, budget, gfn, limit):
    """Touch the guest frames [gfn, limit), as far as nothing has to wait.

    Parameters
    ----------
    mode : NestedMode
        The monitor's.
    bills : BILL[1]
        What is to be paid for it.
    budget : int
        Cycles after which no further exit is begun.

    Returns
    -------
    int
        The first frame not dealt with.
    """
    bill = bills[0]
    while gfn < limit and bill.now < budget and bill.logged < LATENCIES:
        if not touch_frame(mode, bill, gfn):
            break
        gfn += 1
    return gfn
