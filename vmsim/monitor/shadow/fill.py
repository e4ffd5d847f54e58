"""What a shadow monitor does at a page fault: walk the guest's tables, fill the shadow.

Each kernel below carries an exit out as far as it goes without waiting, and returns why it stopped. Run again, it
takes up where it stopped: what is done already stays.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import (
    ACCESSED,
    CODE_FETCH,
    CODE_PRESENT,
    CODE_RESERVED,
    CODE_USER,
    CODE_WRITE,
    DIRTY,
    FRAME,
    LARGE,
    PAGE_SHIFT,
    PDPTE_RESERVED,
    PRESENT,
    USER,
    WRITE,
)
from vmsim.machine.memory import entry_at, index_of, read_entry, read_word, width_of, write_entry, write_word
from vmsim.monitor.shadow.guards import floods, guarded, guards_within, let_through
from vmsim.monitor.shadow.nested import link_nested
from vmsim.monitor.shadow.quadrants import (
    first_frame,
    guest_place,
    quadrant_below,
    read_gpte,
    root_for,
    write_gpte,
)
from vmsim.monitor.shadow.records import NO_PAGE, SPARE, Hide
from vmsim.monitor.shadow.sync import map_entry, resync_below, rights_of, wanted
from vmsim.monitor.shadow.tables import (
    attach,
    drop_page,
    find_page,
    less,
    make_page,
    place_of,
    reap,
    reserved,
    zap_entry,
)
from vmsim.tables.backing import host_address, locate, locate_page

__all__ = ["LOST", "Status", "child_of", "fill", "prefill", "walk_tables"]


class Status(IntEnum):
    """Why a kernel stopped."""

    DONE = 0
    NEED = 1  # the stock must be filled to SPARE frames
    UNBACKED = 2  # the host must back a guest frame
    FAULT = 3  # the guest's own tables deny the access: its kernel gets the fault
    GUARDED = 4  # the access is to a guarded table: the monitor must make it
    LIMIT = 5  # no more pages are allowed, and all there are are in use
    APPEARED = 6  # a store made an entry that is to be translated now
    ROOTLESS = 7  # CR3 leads to a page that is nobody's shadow any more: it is to be loaded anew


_DONE = np.int64(Status.DONE)
LOST = -1  # what a walk returns where the host has to bring back a table first


@routine
def walk_tables(memory, backing, state, cpu, cr3, gva, write):
    """Walk the guest's tables as the hardware would, flags included but for the page's own; return the leaf's level.

    `cpu` has the vCPU's PDPTEs, and whether its access is the kernel's. The entries are left in the state, and how many
    of them were read from memory (`reads`); 0 is a fault, whose error code is there. LOST says that a table of the
    guest lies in no host frame, and `code` is that table's frame. A PAE guest's PDPTEs have no rights; whose `top` is 2
    has loaded them with CR3.
    """
    need = PRESENT | (0 if cpu.supervisor else USER) | (WRITE if write else 0)
    rights = np.int64(-1)
    level = state.levels
    width = width_of(level)
    table = cr3
    state.code = (0 if cpu.supervisor else CODE_USER) | (CODE_WRITE if write else 0)
    state.reads = state.marked = 0
    while True:
        gpa = entry_at(table, gva, level, width)
        state.place[level] = gpa
        loaded = level > state.top
        if loaded:
            hpa, entry = np.int64(0), cpu.pdpte[(gva >> 30) & 3]
        else:
            state.reads += 1
            hpa, backed = locate(backing, gpa)
            if backed == 0 and gpa >> PAGE_SHIFT < len(backing):
                state.code = gpa >> PAGE_SHIFT
                return np.int64(LOST)
            entry = read_entry(memory, hpa, width) if backed else np.int64(0)
        state.entry[level] = entry
        pointer = level == 3 == state.levels
        if entry & PRESENT:
            state.code |= CODE_PRESENT
            if reserved(state, entry, level) or (pointer and entry & PDPTE_RESERVED):
                state.code |= CODE_RESERVED
                return np.int64(0)
        else:
            state.code &= ~CODE_PRESENT
            if pointer:
                return np.int64(0)
        if pointer:
            table = entry & FRAME
            level -= 1
            continue
        rights &= entry
        if rights & need != need:
            return np.int64(0)
        if level == 1 or entry & LARGE:
            return level
        if entry & ACCESSED == 0:
            write_entry(memory, hpa, entry | ACCESSED, width)
            state.entry[level] = entry | ACCESSED
            state.marked |= 1 << level
        table = entry & FRAME
        level -= 1


@routine
def _link(shadow, state, node, child, bits):
    """Make an entry point to a page, with the rights of the guest's entry."""
    memory, pages, links, gfns = shadow.memory, shadow.pages, shadow.links, shadow.gfns
    place = place_of(pages, node)
    old = read_word(memory, place)
    if old and links[node].target != -1 - child:
        zap_entry(shadow, state, node)
        old = np.int64(0)
    if old == 0:
        attach(pages, links, gfns, node, -1 - child)
    elif old & ~bits & (WRITE | USER):
        less(shadow, state)
    write_word(memory, place, pages[child].hpa | bits | old & ACCESSED)  # which the guest may not know of yet


@routine
def child_of(shadow, state, node, entry, below, origin, first):
    """Return the page that an entry must lead to, made if need be, and link it; NO_PAGE where the limit forbids.

    `entry` is the guest's: that of a table (`origin` -1) or of a large page, of which the page is to map the part
    from frame `first` on.
    """
    memory, pages, links, gfns = shadow.memory, shadow.pages, shadow.links, shadow.gfns
    child = np.int64(NO_PAGE)
    if origin < 0:
        child = find_page(pages, gfns, first, below, quadrant_below(state, node))
        if child != NO_PAGE and not (read_word(memory, place_of(pages, node)) and links[node].target == -1 - child):
            resync_below(shadow, state, child)
        bits = PRESENT | (entry & (USER | WRITE | ACCESSED))
    else:
        bits = rights_of(state, entry) & ~DIRTY
        if read_word(memory, place_of(pages, node)) and links[node].target < 0:
            linked = -1 - links[node].target
            if pages[linked].origin == origin and pages[linked].gfn == first:
                child = linked
    if child == NO_PAGE:
        quadrant = quadrant_below(state, node) if origin < 0 else np.int64(0)
        child = make_page(shadow, state, first, below, quadrant, origin)
        if child == NO_PAGE:
            return child
    _link(shadow, state, node, child, bits)
    return child


@leaf
def _stays_small(shadow, state, node, level):
    """Return whether a large page that an entry of `level` could map was split to be fetched from.

    No other access puts it together (KVM, arch/x86/kvm/mmu/mmu.c, `disallowed_hugepage_adjust`).
    """
    if state.nx == 0 or level == 1 or read_word(shadow.memory, place_of(shadow.pages, node)) == 0:
        return False
    target = shadow.links[node].target
    return target < 0 and shadow.pages[-1 - target].split > 0


@routine
def prefill(shadow, state, node, entry, level):
    """Map the page of a guest leaf that no access asked for, if it is backed and no table; return its level there.

    0 says that it was left out, a level below `level` that the host backs it with smaller pages.
    """
    backing, pages, gfns = shadow.backing, shadow.pages, shadow.gfns
    gfn = first_frame(state, node, entry, level)
    hpa, host_level, _ = locate_page(backing, gfn << PAGE_SHIFT)
    if host_level == 0:
        return np.int64(0)
    if level > 1 and (state.logging or host_level < level or guards_within(gfns, gfn, 1 << (9 * (level - 1)))):
        return np.int64(1)
    if _stays_small(shadow, state, node, level):
        return np.int64(1)
    if level == 1 and gfns[gfn].tables and guarded(pages, gfns, gfn):
        return np.int64(0)
    map_entry(shadow, state, node, entry & ~ACCESSED, gfn, hpa, level)  # A tells whether it is used
    return level


@routine
def _around(shadow, state, page, gva, level):
    """Fill what stands with the entry of `gva` in the same aligned chunk of a shadow page."""
    backing, memory, pages = shadow.backing, shadow.memory, shadow.pages
    index = index_of(gva, level)
    first = index - index % state.chunk
    table = whole = np.int64(0)
    if pages[page].origin < 0:
        table = host_address(backing, pages[page].gfn << PAGE_SHIFT)
    else:
        whole = read_gpte(state, memory, host_address(backing, pages[page].origin))
    for at in range(first, min(first + state.chunk, 512)):
        node = page << 9 | at
        if read_word(memory, place_of(pages, node)):
            continue
        if pages[page].origin < 0:
            entry = read_gpte(state, memory, table | guest_place(state, pages, node) & ((1 << PAGE_SHIFT) - 1))
            if (level > 1 and entry & LARGE == 0) or not wanted(state, entry, level):
                continue
        else:
            part = pages[page].gfn + (at << (9 * (level - 1)))
            entry = (whole & ~FRAME) | part << PAGE_SHIFT
        prefill(shadow, state, node, entry, level)


@routine
def _write_to_table(shadow, state, gfn):
    """Count a store that is no kernel's to a table; return whether the flood has ended its shadow."""
    pages, gfns = shadow.pages, shadow.gfns
    page = np.int64(gfns[gfn].tables)
    gone = False
    while page:
        after = np.int64(pages[page - 1].next)
        pages[page - 1].writes += 1
        if floods(state, pages, page - 1) and pages[page - 1].stamp != state.clock:
            drop_page(shadow, state, page - 1)
            gone = True
        page = after
    return gone and not guarded(pages, gfns, gfn)


@kernel
def fill(shadow, cr3, gva, code):
    """Handle a page fault of the hardware that walks the shadow.

    Parameters
    ----------
    shadow : ShadowTables
        From `make_shadow`.
    cr3, gva, code : int
        gpa of the guest's root table; the address that faulted, and the error code that the processor gives.

    Returns
    -------
    (status, value) : tuple of int
        DONE, NEED, LIMIT, ROOTLESS; FAULT with the error code; UNBACKED or GUARDED with the guest frame.
    """
    state, cpu = shadow.states[0], shadow.cpus[0]
    backing, memory, pages, gfns = shadow.backing, shadow.memory, shadow.pages, shadow.gfns
    write, fetched = code & CODE_WRITE != 0, state.nx and code & CODE_FETCH
    state.clock += 1
    found = walk_tables(memory, backing, state, cpu, cr3, gva, write)
    if state.logging:
        for level in range(1, 6):
            if state.marked >> level & 1:
                shadow.dirty[state.place[level] >> PAGE_SHIFT] = True
    if found == LOST:
        return np.int64(Status.UNBACKED), state.code
    if state.hide == Hide.PRESENT_BIT:
        for step in range(state.reads):
            gfns[state.place[state.top - step] >> PAGE_SHIFT].mapped = cpu.exit  # the walk pays for its tables
    if found == 0:
        return np.int64(Status.FAULT), state.code
    if cpu.stock < SPARE:
        return np.int64(Status.NEED), np.int64(0)
    page = root_for(state, cpu, gva)
    if page == NO_PAGE or pages[page].invalid:
        return np.int64(Status.ROOTLESS), np.int64(0)
    within = (1 << (PAGE_SHIFT + width_of(state.levels) * (found - 1))) - 1
    gpa = (state.entry[found] & FRAME & ~within) | (gva & within)
    gfn = gpa >> PAGE_SHIFT
    hpa, host_level, only_read = locate_page(backing, gpa)
    if host_level == 0 or (only_read and write):
        return np.int64(Status.UNBACKED), gfn
    marks = ACCESSED | (DIRTY if write else 0)
    if state.logging and write and not shadow.dirty[gfn]:
        shadow.dirty[gfn] = True
        cpu.protected |= state.entry[found] & DIRTY  # a clean page is protected anyway
    if state.entry[found] & marks != marks:
        if state.logging:
            shadow.dirty[state.place[found] >> PAGE_SHIFT] = True
        state.entry[found] |= marks
        write_gpte(state, memory, host_address(backing, state.place[found]), state.entry[found])
    size = np.int64(1) if state.logging else min(found, host_level)  # the log tells of small pages
    while size > 1 and guards_within(gfns, gfn & ~((1 << (9 * (size - 1))) - 1), 1 << (9 * (size - 1))):
        size -= 1
    whole = size  # but for a fetch
    if fetched:
        size = np.int64(1)
    level = state.top
    while True:
        node = page << 9 | index_of(gva, level)
        if level == size and _stays_small(shadow, state, node, level):
            size -= 1
        if level == size:
            break
        pages[page].stamp = state.clock
        pages[page].writes = 0
        entry = state.entry[max(level, found)]
        origin = np.int64(-1)
        first = (entry & FRAME) >> PAGE_SHIFT
        if level <= found:
            origin = state.place[found]
            first = gfn & ~((1 << (9 * (level - 1))) - 1)
        if level > found and gfns[first].nested:
            table = locate(backing, first << PAGE_SHIFT)[0]
            link_nested(shadow, state, node, entry, first, table)
            if state.logging:  # the hardware sets flags in it, and nothing can be protected against that
                shadow.dirty[first] = True
            reap(shadow, state)
            return _DONE, np.int64(0)
        page = child_of(shadow, state, node, entry, level - 1, origin, first)
        if page == NO_PAGE:
            return np.int64(Status.LIMIT), np.int64(0)
        if level <= whole and fetched and pages[page].split == 0:
            state.splits += 1
            pages[page].split = state.splits
            cpu.split = 1
        level -= 1
    pages[page].stamp = state.clock
    pages[page].writes = 0
    first = gfn & ~((1 << (9 * (size - 1))) - 1)
    if size > 1 and guards_within(gfns, first, 1 << (9 * (size - 1))):
        return np.int64(Status.NEED), np.int64(0)  # a table on the way has just become one: walk again
    if write and size == 1 and guarded(pages, gfns, gfn):
        let_through(state, pages, gfns, gfn)
    held = map_entry(shadow, state, node, state.entry[found], first, hpa, size)
    if held and write and _write_to_table(shadow, state, gfn):
        held = map_entry(shadow, state, node, state.entry[found], first, hpa, size)
    if state.chunk > 1:
        _around(shadow, state, page, gva, size)
    reap(shadow, state)
    if held and (write or state.hide != Hide.WRITE_PROTECT):
        return np.int64(Status.GUARDED), gfn
    return _DONE, np.int64(0)
