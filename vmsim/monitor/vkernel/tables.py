"""A vkernel's page tables: walked in software by the host, which keeps what it finds in page tables of its own.

The guest's tables are memory like any other to hardware. The host has for each of the guest's address spaces a map
(DragonFly's pmap): real tables from gva to hpa, which the hardware walks, filled page by page as the guest's processes
fault (DragonFly sys/vm/vm_fault.c, vm_fault_vpagetable) and emptied where the guest's kernel says so (MADV_INVAL). A
map has pages of 4 KiB only: the host enters the one page that was asked for, whatever maps it in the guest. Tables
that become empty are freed (machdep.pmap_dynamic_delete, which some versions of DragonFly turn on and others off).

A map has the format of the guest's tables: 4 or 5 levels on a 64-bit host, 2 on a host in 32-bit paging, as vkernels
were when DragonFly ran on i386 (sys/platform/vkernel), 3 on one in PAE mode, which DragonFly never was. The root of
those has its four tables from the start, and keeps them: the processor has its entries in registers.

DragonFly does not look at the user bit of the guest's entries (their lower half is all user), takes the right to write
from the last entry alone, and sets the dirty flag in directories too. Here all three are as hardware has them.
"""

from __future__ import annotations

import numpy as np

from vmsim.frames.records import State
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import ACCESSED, DIRTY, ENTRIES, FRAME, PAGE_SHIFT, PRESENT, USER, WRITE
from vmsim.machine.memory import clear_frame, entry_at, read_entry, width_of, write_entry
from vmsim.monitor.shadow.fill import LOST, Status, walk_tables
from vmsim.monitor.vkernel.entries import add_table, attach, detach, drop_table, has_room, node_of
from vmsim.tables.backing import host_address, locate_page

__all__ = ["TABLE_ROOM", "calls_for", "empties", "enter", "make_walk", "remove"]

TABLE_ROOM = 512  # tables that one call of `remove` can free

# What a walk of the guest's tables is told, and what it leaves behind; names as of monitor.shadow.records.SHADOW.
WALK = np.dtype(
    (
        np.record,
        [
            ("frames", "i8"),  # guest frames: those above do not exist
            ("levels", "i8"),
            ("top", "i8"),  # level of the first entry that a walk reads from memory: the root's
            ("pdpte", "i8", (4,)),  # which it then has not loaded before
            ("largest", "i8"),  # level above which no entry maps a page
            ("supervisor", "i8"),  # 0: only programs run on the maps
            ("marked", "i8"),  # levels, as bits, at which the last walk has set A
            ("code", "i8"),  # of the fault that the last walk met
            ("entry", "i8", (6,)),  # the guest's entries that the last walk read, by level
            ("place", "i8", (6,)),  # and their gpas; -1 where it did not come
            ("reads", "i8"),  # entries that it read
        ],
    )
)


def make_walk(frames: int, levels: int, largest: int) -> np.ndarray:
    """Return what the kernels below need of a guest of so many frames, shape (1,).

    Its tables have so many levels, and entries above level `largest` map no pages.
    """
    walk = np.zeros(1, WALK)
    walk["frames"] = frames
    walk["levels"] = walk["top"] = levels
    walk["largest"] = largest
    return walk


@kernel
def enter(maps, cr3, root, gva, write, tables):
    """Handle a page fault of the hardware: walk the guest's tables, and enter the page in the host's map.

    The walk sets the accessed flag of each entry, and the dirty flag of the page's on a write. Until that is set the
    page is entered read-only, so that the first write faults and is seen.

    Parameters
    ----------
    maps : MapTables
        The maps.
    cr3, root : int
        gpa of the guest's root table; hpa of the map's.
    gva, write : int, bool
        The address that faulted, and whether it was written to.
    tables : int64[:]
        Frame numbers to make tables of.

    Returns
    -------
    (status, value) : tuple of int
        DONE with the tables used; NEED with how many there must be (nothing is done yet); FAULT with the error code;
        UNBACKED with the guest frame; LIMIT, and nothing is done, where there is no number for a table.
    """
    if not has_room(maps):
        return np.int64(Status.LIMIT), np.int64(0)
    memory, backing, frames, walk = maps.memory, maps.backing, maps.frames, maps.walks[0]
    found = walk_tables(memory, backing, walk, walk, cr3, gva, write)
    if found == LOST:
        return np.int64(Status.UNBACKED), walk.code
    if found == 0:
        return np.int64(Status.FAULT), walk.code
    width = width_of(walk.levels)
    within = (1 << (PAGE_SHIFT + width * (found - 1))) - 1
    gpa = (walk.entry[found] & FRAME & ~within) | (gva & within)
    hpa, backed, only_read = locate_page(backing, gpa)
    if backed == 0 or (only_read and write):
        return np.int64(Status.UNBACKED), gpa >> PAGE_SHIFT
    level = walk.levels
    table = root
    used = np.int64(0)
    while level > 1:
        place = entry_at(table, gva, level, width)
        entry = read_entry(memory, place, width)
        if entry == 0:
            if len(tables) < level - 1:
                return np.int64(Status.NEED), level - 1
            pfn = tables[used]
            used += 1
            clear_frame(memory, pfn << PAGE_SHIFT)
            frames[pfn].state = State.TABLE
            frames[pfn].rmap = 0
            if level == 2:
                add_table(maps, pfn)
            entry = pfn << PAGE_SHIFT | PRESENT | WRITE | USER | ACCESSED
            write_entry(memory, place, entry, width)
        table = entry & FRAME
        level -= 1
    marks = ACCESSED | (DIRTY if write else 0)
    if walk.entry[found] & marks != marks:
        walk.entry[found] |= marks
        write_entry(memory, host_address(backing, walk.place[found]), walk.entry[found], width)
    rights = walk.entry[found]
    for above in range(found + 1, 3 if walk.levels == 3 else walk.levels + 1):  # a PDPTE has no rights
        rights &= walk.entry[above] | ~WRITE
    bits = PRESENT | USER | ACCESSED | (DIRTY if write else 0)
    if rights & DIRTY and not only_read:
        bits |= rights & WRITE
    place = entry_at(table, gva, np.int64(1), width)
    old = read_entry(memory, place, width)
    if old and (old ^ hpa) & FRAME == 0:  # another vCPU has been faster, and may have written
        bits |= old & DIRTY
    node = node_of(maps, place, width)
    if old and maps.links[node].gfn != gpa >> PAGE_SHIFT:
        detach(maps, node)
        old = np.int64(0)
    if old == 0:
        attach(maps, node, gpa >> PAGE_SHIFT)
    write_entry(memory, place, (hpa & FRAME) | bits, width)
    return np.int64(Status.DONE), used


@routine
def _empty(memory, table):
    first = table >> 3
    for word in range(ENTRIES):  # noqa: SIM110
        if memory[first + word]:
            return False
    return True


@kernel
def remove(maps, root, first, last, path, freed):
    """Take the pages of [first, last] out of a map, and free the tables that become empty.

    The root stays, and under PAE the four tables below it.

    Parameters
    ----------
    maps, root
        As of `enter`.
    first, last : int
        gvas.
    path : int64[6]
        Scratch.
    freed : int64[TABLE_ROOM]
        Filled: frame numbers of tables that are none any more.

    Returns
    -------
    (address, pages, tables) : tuple of int
        Where it stopped because `freed` was full (above `last` if it did not); pages and tables removed.
    """
    memory, frames, levels = maps.memory, maps.frames, maps.walks[0].levels
    width = width_of(levels)
    top = 2 if levels == 3 else levels  # of what stays
    address = first & ~((1 << PAGE_SHIFT) - 1)
    pages = 0
    tables = 0
    while address <= last and tables + levels <= len(freed):
        level = levels
        table = root
        while True:
            path[level] = entry_at(table, address, level, width)
            entry = read_entry(memory, path[level], width)
            if entry == 0 or level == 1:
                break
            table = entry & FRAME
            level -= 1
        span = 1 << (PAGE_SHIFT + width * (level - 1))
        if level > 1:
            address = (address & ~(span - 1)) + span
            continue
        place = path[1]
        while True:
            if read_entry(memory, place, width):
                write_entry(memory, place, np.int64(0), width)
                detach(maps, node_of(maps, place, width))
                pages += 1
            place += 1 << (PAGE_SHIFT - width)
            address += span
            if address > last or (address >> PAGE_SHIFT) & ((1 << width) - 1) == 0:
                break
        while level < top:
            table = path[level] & FRAME
            if not _empty(memory, table):
                break
            freed[tables] = table >> PAGE_SHIFT
            frames[table >> PAGE_SHIFT].state = State.POOL
            if level == 1:
                drop_table(maps, table >> PAGE_SHIFT)
            tables += 1
            level += 1
            write_entry(memory, path[level], np.int64(0), width)
    return address, pages, tables


@routine
def empties(memory, root, levels, first, last):
    """Return whether `remove` would free a table: one of the lowest level that maps nothing but pages of its range."""
    width = width_of(levels)
    span = np.int64(1) << (PAGE_SHIFT + width)  # of such a table
    start = first & -span
    while start <= last:
        level = levels
        table = root
        alone = True  # whether there is a table here, with no other pages
        while level > 1 and alone:
            entry = read_entry(memory, entry_at(table, start, level, width), width)
            alone = entry != 0
            table = entry & FRAME
            level -= 1
        address = start
        while alone and address < start + span:
            inside = first <= address <= last
            alone = inside or read_entry(memory, entry_at(table, address, np.int64(1), width), width) == 0
            address += 1 << PAGE_SHIFT
        if alone:
            return True
        start += span
    return False


@leaf
def calls_for(page, limit, entries):
    """Return by how many calls DragonFly's pmap tells of pages: pmap_inval_pte of a page, pmap_inval_pde of a table."""
    whole = max(0, limit // entries - -(-page // entries))
    return limit - page - whole * (entries - 1)
