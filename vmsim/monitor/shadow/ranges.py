"""What a host does to the shadow entries that map a range of guest frames: zap, protect, age, dirty.

The entries of a frame are in its list (`gfns.leaves`), those of large pages in that of their first frame (KVM's rmap,
Linux arch/x86/kvm/mmu/mmu.c, `kvm_zap_rmap`, `kvm_age_rmap`). Frames that are tables of the guest lose their shadows
too: what shadows a table lies in no frame of the guest's any more once that frame is taken.
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, leaf, routine
from vmsim.machine.copies import note_read
from vmsim.machine.formats import ACCESSED, DIRTY, PAGE_SHIFT, SWITCH
from vmsim.machine.memory import read_word, write_word
from vmsim.monitor.shadow.nested import go_back_one
from vmsim.monitor.shadow.tables import drop_page, fold_entry, place_of, reap, zap_entry
from vmsim.tables.backing import locate

__all__ = ["change_each_frame", "change_frames", "recover", "recover_split", "zap_frames"]


@leaf
def _maps(shadow, node, size_level, exact):
    """Return whether an entry in the list of a frame maps a page of `size_level`; `exact`: of the frame itself."""
    level = np.int64(shadow.pages[node >> 9].level)
    if read_word(shadow.memory, place_of(shadow.pages, node)) & SWITCH:
        return exact
    return level == size_level


@routine
def _zap_leaves(shadow, state, gfn):
    """Clear the entries of a frame and of the large pages that it is in; return how many there were."""
    count = np.int64(0)
    for level in range(1, 4):
        base = gfn & ~((np.int64(1) << (9 * (level - 1))) - 1)
        node = np.int64(shadow.gfns[base].leaves)
        while node:
            after = np.int64(shadow.links[node - 1].next)
            if _maps(shadow, node - 1, level, level == 1 and base == gfn):
                count += zap_entry(shadow, state, node - 1)
            node = after
    return count


@kernel
def zap_frames(shadow, first, count):
    """Clear what maps any of `count` guest frames from `first` on, and drop the shadows of those that are tables.

    Parameters
    ----------
    shadow : ShadowTables
        From `make_shadow`.

    Returns
    -------
    int
        Entries that were cleared. What processors keep of them is to be flushed.
    """
    state = shadow.states[0]
    zapped = np.int64(0)
    for gfn in range(first, first + count):
        if shadow.gfns[gfn].nested:
            go_back_one(shadow, state, np.int64(gfn))
            zapped += 1
        zapped += _zap_leaves(shadow, state, np.int64(gfn))
        page = np.int64(shadow.gfns[gfn].tables)
        while page:
            after = np.int64(shadow.pages[page - 1].next)
            drop_page(shadow, state, page - 1)
            zapped += 1
            page = after
    reap(shadow, state)
    return zapped


@routine
def _change_frame(shadow, state, gfn, mark, gone):
    """Look at the entries that map a frame; take bits from those that have a flag; return how many have."""
    memory, pages, links = shadow.memory, shadow.pages, shadow.links
    marked = np.int64(0)
    for level in range(1, 4):
        base = gfn & ~((np.int64(1) << (9 * (level - 1))) - 1)
        node = np.int64(shadow.gfns[base].leaves)
        while node:
            place = place_of(pages, node - 1)
            entry = read_word(memory, place)
            if gone or mark != -1:
                note_read(memory, place)
            if entry & mark and _maps(shadow, node - 1, level, level == 1 and base == gfn):
                marked += 1
                if state.sync and gone & (ACCESSED | DIRTY):
                    fold_entry(shadow, state, node - 1)
                write_word(memory, place, entry & ~gone)
            node = np.int64(links[node - 1].next)
    return marked


@kernel
def change_frames(shadow, first, count, mark, gone, found):
    """Look at the entries that map the frames; take bits from those that have the flag `mark`.

    The guest's own entries get A and D first where the shadow's stand for them and are to go. `found` (bool[count]) is
    set where an entry has the flag; returns how many do.
    """
    marked = np.int64(0)
    for gfn in range(first, first + count):
        entries = _change_frame(shadow, shadow.states[0], np.int64(gfn), mark, gone)
        if entries:
            marked += entries
            found[gfn - first] = True
    return marked


@kernel
def change_each_frame(shadow, gfns, mark, gone, found):
    """Do as `change_frames` to some frames, int64[n]; `found` is bool[n]."""
    for number in range(len(gfns)):
        if _change_frame(shadow, shadow.states[0], gfns[number], mark, gone):
            found[number] = True


@routine
def _unlink(shadow, state, page):
    """Clear what leads to a part of a large page."""
    while shadow.pages[page].parents:
        zap_entry(shadow, state, np.int64(shadow.pages[page].parents) - 1)


@kernel
def recover_split(shadow, page):
    """Clear what leads to a part of a large page that was split to be fetched from.

    KVM's kvm_recover_nx_huge_pages, by kvm_mmu_prepare_zap_page.
    """
    _unlink(shadow, shadow.states[0], page)
    reap(shadow, shadow.states[0])


@kernel
def recover(shadow):
    """Clear what leads to parts of large pages that the host maps by one entry: they come back large when next used.

    KVM's kvm_rmap_zap_collapsible_sptes, when a dirty log ends. Returns how many parts there were.
    """
    state = shadow.states[0]
    pages = shadow.pages
    count = 0
    for page in range(len(pages)):
        level = np.int64(pages[page].level)
        if level and pages[page].origin >= 0 and locate(shadow.backing, pages[page].gfn << PAGE_SHIFT)[1] > level:
            _unlink(shadow, state, np.int64(page))
            count += 1
    reap(shadow, state)
    return count
