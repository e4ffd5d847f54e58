"""Shadow pages: real page tables that a monitor keeps for a guest's own, and how they hang together.

A shadow page stands for a guest table, (gfn, level), for a quadrant of one (see quadrants.py), or for a part of a large
guest page that the host backs with smaller ones. Its 512 entries are x86 entries in a host frame, which the hardware
walks. Everything else about it is kept here: a record of each page, and a record of each entry, numbered
page << 9 | index, that links it to the others with the same target. So each guest frame knows the entries that map it
(the reverse map), and each page its parents (Linux Documentation/virt/kvm/x86/mmu.rst). Pages are recycled, the least
recently used first.
"""

from __future__ import annotations

import numpy as np

from vmsim.frames.records import State
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import ACCESSED, DIRTY, FRAME, LARGE, PAGE_SHIFT, USER, WRITE
from vmsim.machine.memory import clear_frame, read_word, width_of, write_word
from vmsim.monitor.shadow.guards import guarded, is_directory, let_through
from vmsim.monitor.shadow.quadrants import guest_place, in_cr3, read_gpte, write_gpte
from vmsim.monitor.shadow.records import NO_PAGE, Hide, Work
from vmsim.tables.backing import host_address

__all__ = [
    "attach",
    "drop_page",
    "drop_tables",
    "end_exit",
    "find_page",
    "fold_entry",
    "hide_table",
    "less",
    "make_page",
    "make_table",
    "note",
    "place_of",
    "reach",
    "reap",
    "reserved",
    "retire_page",
    "set_root",
    "zap_entry",
]


@leaf
def note(state, cpu, what):
    """Count work, and what it costs the vCPU."""
    state.work[what] += 1
    cpu.due += state.prices[what]


@leaf
def end_exit(state, cpu):
    """End an exit: the monitor has no table of the guest's mapped any more."""
    state.exit = (state.exit + 1) & 0x7FFFFFFF
    cpu.exit = state.exit


@leaf
def reach(state, cpu, gfns, gfn):
    """Read or write a table of the guest's; with `Hide.PRESENT_BIT` the monitor maps it first, once in an exit."""
    if state.hide == Hide.PRESENT_BIT and gfns[gfn].mapped != cpu.exit:
        gfns[gfn].mapped = cpu.exit
        note(state, cpu, np.int64(Work.MAPPED))


@leaf
def place_of(pages, node):
    """Return the hpa of an entry."""
    return pages[node >> 9].hpa + ((node & 511) << 3)


@routine
def attach(pages, links, gfns, node, target):
    """Note that an entry points to a guest frame, or to page -1 - target."""
    head = np.int64(gfns[target].leaves) if target >= 0 else np.int64(pages[-1 - target].parents)
    links[node].target = target
    links[node].next = head
    links[node].prev = 0
    if head:
        links[head - 1].prev = node + 1
    if target >= 0:
        gfns[target].leaves = node + 1
    else:
        pages[-1 - target].parents = node + 1


@routine
def _detach(pages, links, gfns, node):
    target = links[node].target
    after = np.int64(links[node].next)
    before = np.int64(links[node].prev)
    if after:
        links[after - 1].prev = before
    if before:
        links[before - 1].next = after
    elif target >= 0:
        gfns[target].leaves = after
    else:
        pages[-1 - target].parents = after


@leaf
def reserved(state, entry, level):
    """Return whether a present guest entry has a bit that must be 0, or points beyond the guest's memory.

    PS where there are no pages of that size, address bits inside a large page (SDM vol. 3A §5.5.4); an address beyond
    the guest's memory is taken to be beyond its MAXPHYADDR.
    """
    gfn = (entry & FRAME) >> PAGE_SHIFT
    if level > 1 and entry & LARGE:
        size = 1 << (width_of(state.levels) * (level - 1))
        return level > state.largest or (gfn & (size - 1)) >> 1 != 0 or (gfn & ~(size - 1)) + size > state.frames
    return gfn >= state.frames


@leaf
def find_page(pages, gfns, gfn, level, quadrant):
    """Return the shadow page of a guest table or of a quadrant of it, or NO_PAGE."""
    page = np.int64(gfns[gfn].tables)
    while page:
        if pages[page - 1].level == level and pages[page - 1].quadrant == quadrant:
            return page - 1
        page = np.int64(pages[page - 1].next)
    return np.int64(NO_PAGE)


@routine
def fold_entry(shadow, state, node):
    """Bring A and D of the guest's entry up to date with what the hardware has set in its shadow."""
    backing, memory, pages, links, gfns = shadow.backing, shadow.memory, shadow.pages, shadow.links, shadow.gfns
    entry = read_word(memory, place_of(pages, node))
    page = pages[node >> 9]
    gpa = guest_place(state, pages, node)
    marks = entry & (ACCESSED | DIRTY if links[node].target >= 0 else ACCESSED)
    if page.origin >= 0 and links[node].target < 0:
        return
    reach(state, shadow.cpus[0], gfns, gpa >> PAGE_SHIFT)
    if state.logging:
        shadow.dirty[gpa >> PAGE_SHIFT] = True
    hpa = host_address(backing, gpa)
    write_gpte(state, memory, hpa, read_gpte(state, memory, hpa) | marks)


@leaf
def less(shadow, state):
    """Note that an entry is gone or gives less: the vCPU's own TLB the guest flushes, the others' the monitor."""
    shadow.cpus[0].stale = 1
    state.remote = 1


@routine
def zap_entry(shadow, state, node):
    """Clear an entry; return whether there was one. A part of a large page that it led to is doomed (see `reap`)."""
    memory, pages, links, gfns = shadow.memory, shadow.pages, shadow.links, shadow.gfns
    hpa = place_of(pages, node)
    if read_word(memory, hpa) == 0:
        return False
    if state.sync:
        fold_entry(shadow, state, node)
    target = links[node].target
    _detach(pages, links, gfns, node)
    write_word(memory, hpa, np.int64(0))
    less(shadow, state)
    note(state, shadow.cpus[0], np.int64(Work.ZAPPED))
    if target < 0 and pages[-1 - target].origin >= 0:
        pages[-1 - target].next = state.doomed
        state.doomed = -target
    return True


@routine
def _empty(shadow, state, page):
    """Clear all entries of a page."""
    for node in range(page << 9, (page + 1) << 9):
        zap_entry(shadow, state, node)


@routine
def _release(shadow, state, page):
    """Free a page that holds nothing and that nothing points to; its frame goes back to the stock."""
    pages, cpu = shadow.pages, shadow.cpus[0]
    pfn = pages[page].hpa >> PAGE_SHIFT
    shadow.frames[pfn].state = State.POOL
    shadow.stock[cpu.stock] = pfn
    cpu.stock += 1
    state.unsynced -= pages[page].unsync
    pages[page].unsync = 0
    pages[page].level = 0
    pages[page].next = state.free
    state.free = page + 1
    state.used -= 1
    note(state, cpu, np.int64(Work.DROPPED))
    state.flush = 1  # walk caches may lead to it


@routine
def reap(shadow, state):
    """Free the doomed pages, and what of the same large pages hangs below them."""
    while state.doomed:
        page = state.doomed - 1
        state.doomed = np.int64(shadow.pages[page].next)
        _empty(shadow, state, page)
        _release(shadow, state, page)


@routine
def drop_page(shadow, state, page):
    """Give up a table's shadow; one that a CR3 leads to only loses its entries."""
    if in_cr3(shadow.pages, page):
        _empty(shadow, state, page)
        reap(shadow, state)
        shadow.pages[page].writes = 0
        state.flush = 1
        return
    retire_page(shadow, state, page)


@routine
def retire_page(shadow, state, page):
    """Give up a table's shadow for good; while a CR3 leads to it, it stays, empty and nobody's shadow.

    So does a root of KVM's (arch/x86/kvm/mmu/mmu.c, `__kvm_mmu_prepare_zap_page`, role.invalid), whose vCPUs look for
    another before they enter the guest.
    """
    pages, gfns = shadow.pages, shadow.gfns
    _empty(shadow, state, page)
    reap(shadow, state)
    pages[page].writes = 0
    while pages[page].parents:
        zap_entry(shadow, state, np.int64(pages[page].parents) - 1)
    gfn = pages[page].gfn
    if gfns[gfn].tables == page + 1:
        gfns[gfn].tables = pages[page].next
    else:
        before = np.int64(gfns[gfn].tables) - 1
        while pages[before].next != page + 1:
            before = np.int64(pages[before].next) - 1
        pages[before].next = pages[page].next
    if in_cr3(pages, page):
        pages[page].invalid = 1
        state.unsynced -= pages[page].unsync
        pages[page].unsync = 0
        state.flush = 1
        return
    _release(shadow, state, page)


@routine
def set_root(shadow, state, number, page):
    """Have root `number` of the vCPU be a page, or NO_PAGE; one that was given up goes with the last that left it."""
    pages, cpu = shadow.pages, shadow.cpus[0]
    old = cpu.roots[number]
    cpu.roots[number] = page
    if page != NO_PAGE:
        pages[page].roots += 1
    if old != NO_PAGE:
        pages[old].roots -= 1
        if pages[old].invalid and not in_cr3(pages, old):
            pages[old].invalid = 0
            _empty(shadow, state, old)
            reap(shadow, state)
            _release(shadow, state, old)


@routine
def hide_table(shadow, state, gfn):
    """Take the right to a frame that has become a guarded table from all entries that map it."""
    memory, pages, links, gfns = shadow.memory, shadow.pages, shadow.links, shadow.gfns
    for level in range(1, 4):
        node = np.int64(gfns[gfn & ~((1 << (9 * (level - 1))) - 1)].leaves)
        while node:
            after = np.int64(links[node - 1].next)
            at = pages[(node - 1) >> 9].level
            if at >= level and (level > 1 or at == 1):
                hpa = place_of(pages, node - 1)
                entry = read_word(memory, hpa)
                right = np.int64(WRITE) if state.hide == Hide.WRITE_PROTECT else np.int64(USER)
                if at > 1 or state.hide == Hide.PRESENT_BIT:
                    zap_entry(shadow, state, node - 1)
                    state.flush = 1
                elif entry & right:
                    write_word(memory, hpa, entry & ~right)
                    state.flush = 1
            node = after


@routine
def _evict(shadow, state):
    """Drop the page that was not walked through for longest, but none that this walk uses."""
    pages = shadow.pages
    victim = np.int64(NO_PAGE)
    oldest = state.clock
    for page in range(len(pages)):
        if pages[page].level and pages[page].stamp < oldest and not in_cr3(pages, page):
            victim = np.int64(page)
            oldest = pages[page].stamp
    if victim == NO_PAGE:
        return False
    if pages[victim].origin < 0:
        drop_page(shadow, state, victim)
    else:
        zap_entry(shadow, state, np.int64(pages[victim].parents) - 1)
        reap(shadow, state)
    return True


@routine
def make_table(shadow):
    """Make an empty table of a frame of the stock; return its hpa."""
    cpu, frames = shadow.cpus[0], shadow.frames
    cpu.stock -= 1
    pfn = shadow.stock[cpu.stock]
    frames[pfn].state = State.TABLE
    frames[pfn].rmap = 0
    clear_frame(shadow.memory, pfn << PAGE_SHIFT)
    return pfn << PAGE_SHIFT


@routine
def make_page(shadow, state, gfn, level, quadrant, origin):
    """Return a new empty page, or NO_PAGE where the limit allows none; there must be a frame in the stock."""
    pages, gfns = shadow.pages, shadow.gfns
    if state.free == 0 and not _evict(shadow, state):
        return np.int64(NO_PAGE)
    page = state.free - 1
    state.free = np.int64(pages[page].next)
    state.used += 1
    note(state, shadow.cpus[0], np.int64(Work.MADE))
    pages[page].hpa = make_table(shadow)
    pages[page].gfn = gfn
    pages[page].level = level
    pages[page].quadrant = quadrant
    pages[page].origin = origin
    pages[page].stamp = state.clock
    pages[page].parents = 0
    pages[page].writes = 0
    pages[page].unsync = 0
    pages[page].stored = 0
    pages[page].split = 0
    pages[page].next = 0
    if origin < 0:
        pages[page].next = gfns[gfn].tables
        gfns[gfn].tables = page + 1
        hide_table(shadow, state, gfn)
    return page


@kernel
def drop_tables(shadow, first, count):
    """Give up the shadows of the guest frames [first, first + count), which the guest writes over wholly.

    Returns
    -------
    (emulated, left, directories) : tuple of int
        How many of the frames were guarded, those apart that the first store leaves to the guest; how many of those
        that stay guarded are tables above level 1.
    """
    state = shadow.states[0]
    pages, gfns = shadow.pages, shadow.gfns
    emulated = 0
    left = 0
    directories = 0
    for gfn in range(first, first + count):
        if gfns[gfn].tables == 0:
            continue
        if guarded(pages, gfns, gfn):
            if let_through(state, pages, gfns, gfn):
                left += 1
            else:
                emulated += 1
                directories += is_directory(pages, gfns, gfn)
        page = np.int64(gfns[gfn].tables)
        while page:
            after = np.int64(pages[page - 1].next)
            drop_page(shadow, state, page - 1)
            page = after
    return emulated, left, directories
