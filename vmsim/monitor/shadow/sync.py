"""Entries of the shadow that map pages: written as the guest's and the host's say, and brought back into step."""

from __future__ import annotations

import numpy as np

from vmsim.jit import leaf, routine
from vmsim.machine.formats import ACCESSED, DIRTY, FRAME, LARGE, NO_EXECUTE, PAGE_SHIFT, PRESENT, USER, WRITE
from vmsim.machine.memory import read_word, write_word
from vmsim.monitor.shadow.guards import guarded
from vmsim.monitor.shadow.quadrants import guest_place, read_gpte
from vmsim.monitor.shadow.records import Hide, Work
from vmsim.monitor.shadow.tables import attach, hide_table, less, note, place_of, reach, reserved, zap_entry
from vmsim.tables.backing import host_address, locate_page, shared

__all__ = ["map_entry", "refresh", "resync_below", "rights_of", "wanted"]


@leaf
def rights_of(state, entry):
    """Return the bits of a shadow entry that maps what the guest's leaf `entry` does: a clean page is not writable."""
    bits = PRESENT | (entry & (USER | WRITE | ACCESSED | DIRTY))
    if not state.sync and entry & DIRTY == 0:
        bits &= ~WRITE
    return bits


@leaf
def wanted(state, entry, level):
    """Return whether an entry may be translated before it is used: no kernel's, nor where A would then not be set."""
    if entry & PRESENT == 0 or entry & USER == 0 or reserved(state, entry, level):
        return False
    return state.sync | entry & ACCESSED != 0


@routine
def map_entry(shadow, state, node, entry, gfn, hpa, level):
    """Make an entry map a page to its frame, with what a guarded table allows; return whether it is guarded."""
    memory, pages, links, gfns = shadow.memory, shadow.pages, shadow.links, shadow.gfns
    bits = rights_of(state, entry)
    held = level == 1 and guarded(pages, gfns, gfn)
    if held and state.hide == Hide.WRITE_PROTECT:
        bits &= ~WRITE
    elif held and state.hide == Hide.USER_BIT:
        bits &= ~USER
    if (state.logging and not shadow.dirty[gfn]) or shared(shadow.backing, gfn):
        bits &= ~WRITE
    place = place_of(pages, node)
    old = read_word(memory, place)
    if old and (links[node].target != gfn or (held and state.hide == Hide.PRESENT_BIT)):
        zap_entry(shadow, state, node)
        old = np.int64(0)
    if held and state.hide == Hide.PRESENT_BIT:
        return held
    if old == 0:
        attach(pages, links, gfns, node, gfn)
    elif old & ~bits & (WRITE | USER):
        less(shadow, state)
    if state.sync:
        bits |= old & (ACCESSED | DIRTY)
    if state.nx and level > 1:
        bits |= NO_EXECUTE
    offset = (1 << (3 + 9 * level)) - 1
    write_word(memory, place, (hpa & ~offset & FRAME) | bits | (LARGE if level > 1 else 0))
    note(state, shadow.cpus[0], np.int64(Work.FILLED))
    return held


@routine
def refresh(shadow, state, node):
    """Compare an entry of a level 1 page with the guest's, which may have changed, and follow it."""
    backing, memory, pages, links, gfns = shadow.backing, shadow.memory, shadow.pages, shadow.links, shadow.gfns
    place = place_of(pages, node)
    if read_word(memory, place) == 0:
        return
    note(state, shadow.cpus[0], np.int64(Work.CHECKED))
    reach(state, shadow.cpus[0], gfns, np.int64(pages[node >> 9].gfn))
    entry = read_gpte(state, memory, host_address(backing, guest_place(state, pages, node)))
    gfn = (entry & FRAME) >> PAGE_SHIFT
    if not wanted(state, entry, np.int64(1)) or links[node].target != gfn:
        zap_entry(shadow, state, node)
        return
    hpa, backed, _ = locate_page(backing, gfn << PAGE_SHIFT)
    if backed:
        map_entry(shadow, state, node, entry, gfn, hpa, np.int64(1))


@leaf
def _leads(state, pages, links, page, top):
    """Return whether page `top` leads to a page, by its parents; in doubt it does."""
    stack = state.way
    stack[0] = page
    count = 1
    steps = 0
    while count:
        count -= 1
        steps += 1
        at = stack[count]
        if at == top or steps > 4096:
            return True
        node = np.int64(pages[at].parents)
        while node:
            if count == len(stack):
                return True
            stack[count] = (node - 1) >> 9
            count += 1
            node = np.int64(links[node - 1].next)
    return False


@routine
def _resync(shadow, state, page):
    """Bring a page that is out of step back into step, and guard its table again."""
    pages = shadow.pages
    pages[page].unsync = 0
    pages[page].writes = 0
    state.unsynced -= 1
    for node in range(page << 9, (page + 1) << 9):
        refresh(shadow, state, node)
    hide_table(shadow, state, np.int64(pages[page].gfn))


@routine
def resync_below(shadow, state, top):
    """Bring the pages that page `top` leads to, and itself, back into step, and guard their tables again.

    So does a load of CR3 with its root, and whoever links a page anew: INVLPG did not find what nothing led to
    (KVM, arch/x86/kvm/mmu/mmu.c and paging_tmpl.h: `kvm_sync_page` and `mmu_sync_children` in `fetch`).
    """
    if state.unsynced == 0:
        return
    for page in range(len(shadow.pages)):
        if shadow.pages[page].unsync and _leads(state, shadow.pages, shadow.links, np.int64(page), top):
            _resync(shadow, state, np.int64(page))
