"""Agile paging's two moves: a guest table goes from shadow to nested walks, and back (Gandhi et al., ISCA 2016).

A table that is nested has no shadow page. The shadow entries that lead to it hold its own host address and SWITCH, and
are in the reverse map of its frame; what hangs below it the hardware finds in the guest's memory, and nobody sees it
edited. `gfns.nested` is such a table's level; 0 is every other frame.
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT, SWITCH, USER, WRITE
from vmsim.machine.memory import read_word, write_word
from vmsim.monitor.shadow.quadrants import in_cr3
from vmsim.monitor.shadow.records import NO_PAGE
from vmsim.monitor.shadow.tables import attach, drop_page, less, place_of, reap, retire_page, set_root, zap_entry
from vmsim.tables.backing import locate

__all__ = ["count_store", "go_back", "go_back_one", "link_nested", "scan", "unlink_nested", "unseen_store"]


@leaf
def _note(state, gfn):
    """Note that there is something of a frame that the end of the interval has to look at."""
    state.first = min(state.first, gfn)
    state.last = max(state.last, gfn + 1)


@routine
def _enter(shadow, state, gfn, level):
    """Leave a table to nested walks: its shadow goes, and those below it that nothing else leads to.

    The shadow in CR3 may go too: the vCPU's root is then NO_PAGE, and those of others are invalid.
    """
    pages, gfns = shadow.pages, shadow.gfns
    gfns[gfn].nested = level
    gfns[gfn].writes = 0
    _note(state, gfn)
    state.to_nested += 1
    page = np.int64(gfns[gfn].tables)
    while page:
        after = np.int64(pages[page - 1].next)
        for number in range(4):
            if shadow.cpus[0].roots[number] == page - 1:
                set_root(shadow, state, number, np.int64(NO_PAGE))
        retire_page(shadow, state, page - 1)
        page = after
    for below in range(level - 1, 0, -1):
        for each in range(len(pages)):
            alone = pages[each].parents == 0 and not in_cr3(pages, each)
            if pages[each].level == below and pages[each].origin < 0 and alone:
                drop_page(shadow, state, np.int64(each))
    state.flush = 1


@leaf
def count_store(shadow, state, gfn):
    """Count a store that was emulated; the one that reaches the threshold leaves its table to nested walks."""
    pages, gfns = shadow.pages, shadow.gfns
    if state.threshold == 0 or gfns[gfn].tables == 0:
        return
    _note(state, gfn)
    gfns[gfn].writes += 1
    if gfns[gfn].writes >= state.threshold:
        level = 0
        page = np.int64(gfns[gfn].tables)
        while page:
            level = max(level, np.int64(pages[page - 1].level))
            page = np.int64(pages[page - 1].next)
        _enter(shadow, state, gfn, np.int64(level))
        gfns[gfn].dirty = 1  # it was stored to in this interval


@leaf
def unseen_store(state, gfns, gfn, old, value):
    """Note what the hardware notes of a store that does not trap: its frame is dirty. A TLB may still hold `old`."""
    if state.threshold:
        _note(state, gfn)
        gfns[gfn].dirty = 1
        if old & PRESENT and old != value:
            state.unseen += 1


@routine
def link_nested(shadow, state, node, entry, gfn, hpa):
    """Make a shadow entry lead to a guest's own table at `hpa`, with the rights of the guest's `entry`."""
    memory, pages, links, gfns = shadow.memory, shadow.pages, shadow.links, shadow.gfns
    place = place_of(pages, node)
    old = read_word(memory, place)
    if old and (old & SWITCH == 0 or links[node].target != gfn):
        zap_entry(shadow, state, node)
        old = np.int64(0)
    if old == 0:
        attach(pages, links, gfns, node, gfn)
    bits = entry & 0xFFF & ~LARGE & ~SWITCH
    if old & ~bits & (WRITE | USER):
        less(shadow, state)
    write_word(memory, place, hpa | bits | SWITCH)


@routine
def _unlink(shadow, state, gfn):
    """Clear the entries that switch to a table."""
    memory, pages, links, gfns = shadow.memory, shadow.pages, shadow.links, shadow.gfns
    node = np.int64(gfns[gfn].leaves)
    while node:
        after = np.int64(links[node - 1].next)
        if read_word(memory, place_of(pages, node - 1)) & SWITCH:
            zap_entry(shadow, state, node - 1)
        node = after


@routine
def go_back_one(shadow, state, gfn):
    """Take a table back from nested walks: it is to be shadowed when it is next walked through."""
    shadow.gfns[gfn].nested = 0
    shadow.gfns[gfn].writes = 0
    state.to_shadow += 1
    state.flush = 1
    _unlink(shadow, state, gfn)


@kernel
def unlink_nested(shadow, first, count):
    """Clear the entries that switch to any of the guest frames [first, first + count), which stay nested tables."""
    for gfn in range(first, first + count):
        if shadow.gfns[gfn].nested:
            _unlink(shadow, shadow.states[0], np.int64(gfn))


@kernel
def go_back(shadow, first, count):
    """Take those of the guest frames [first, first + count) that are nested tables back to the shadow."""
    state = shadow.states[0]
    gfns = shadow.gfns
    for gfn in range(first, min(first + count, state.frames)):
        if gfns[gfn].nested:
            go_back_one(shadow, state, np.int64(gfn))
        gfns[gfn].writes = 0
    reap(shadow, state)


@routine
def _keep_dirty(shadow, state, gfn, level):
    """Leave to nested walks what is dirty below a table that goes back to the shadow; return how many were looked at.

    A table is looked at once: from its first parent.
    """
    backing, memory, gfns = shadow.backing, shadow.memory, shadow.gfns
    looked = np.int64(0)
    stack = state.stack  # of (table, level, next index)
    depth = np.int64(0)
    stack[0], stack[1], stack[2] = gfn, level, np.int64(0)
    while depth >= 0:
        table, at, index = stack[3 * depth], stack[3 * depth + 1], stack[3 * depth + 2]
        hpa, backed = locate(backing, table << PAGE_SHIFT)
        if index == 512 or at == 1 or backed == 0:
            depth -= 1
            continue
        stack[3 * depth + 2] = index + 1
        entry = read_word(memory, hpa + (index << 3))
        below = (entry & FRAME) >> PAGE_SHIFT
        if entry & PRESENT == 0 or entry & LARGE or below >= state.frames or gfns[below].nested:
            continue
        looked += 1
        if gfns[below].dirty:
            _enter(shadow, state, below, at - 1)
        else:
            depth += 1
            stack[3 * depth], stack[3 * depth + 1], stack[3 * depth + 2] = below, at - 1, np.int64(0)
    return looked


@kernel
def scan(shadow, only_clean):
    """End an interval: nested tables go back to the shadow, where `only_clean`, those that were not stored to.

    The clean ones go first, from the top down, and what was stored to below them stays nested. All counts and dirty
    flags start anew.

    Returns
    -------
    int
        Tables whose flag was looked at.
    """
    state = shadow.states[0]
    gfns = shadow.gfns
    looked = np.int64(0)
    for level in range(state.levels, 0, -1):
        for gfn in range(state.first, state.last):
            if gfns[gfn].nested != level:
                continue
            looked += 1
            if only_clean and gfns[gfn].dirty:
                continue
            go_back_one(shadow, state, np.int64(gfn))
            if only_clean:
                looked += _keep_dirty(shadow, state, np.int64(gfn), np.int64(level))
    first, last = state.first, state.last
    state.first, state.last = len(gfns), 0
    for gfn in range(first, last):
        gfns[gfn].writes = 0
        gfns[gfn].dirty = 0
        if gfns[gfn].nested:
            _note(state, gfn)
    reap(shadow, state)
    return looked
