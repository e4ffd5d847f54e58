"""What a shadow monitor does when the guest reaches a hidden table: stores, loads; and at INVLPG and CR3 loads."""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import ACCESSED, DIRTY, FRAME, PAGE_SHIFT, PRESENT, TWO_LEVEL, USER, WRITE
from vmsim.machine.memory import index_of, read_word
from vmsim.monitor.shadow.fill import Status
from vmsim.monitor.shadow.guards import direct_reads, floods, guarded, is_directory, let_through
from vmsim.monitor.shadow.nested import count_store, unseen_store
from vmsim.monitor.shadow.quadrants import nodes_of, read_gpte, root_for, under_pae, write_gpte
from vmsim.monitor.shadow.records import NO_PAGE, Hide, Work
from vmsim.monitor.shadow.sync import refresh, resync_below
from vmsim.monitor.shadow.tables import (
    drop_page,
    end_exit,
    fold_entry,
    note,
    place_of,
    reap,
    zap_entry,
)
from vmsim.tables.backing import locate

__all__ = ["invalidated", "load", "resync", "store"]


@routine
def _used(shadow, state, gfn):
    """Return whether the hardware has used what was last stored to a table."""
    memory, pages = shadow.memory, shadow.pages
    page = np.int64(shadow.gfns[gfn].tables)
    while page:
        last = np.int64(pages[page - 1].stored) - 1
        if last >= 0:
            both = state.levels == TWO_LEVEL and pages[page - 1].level == 2
            for node in range(last, last + (2 if both else 1)):
                if read_word(memory, place_of(pages, node)) & ACCESSED:
                    return True
        page = np.int64(pages[page - 1].next)
    return False


@leaf
def _gives_more(old, new):
    """Return whether an entry that is stored maps the same as before with no right or flag less: nobody flushes then.

    Linux does not where a fault or mprotect gives rights (mm/pgtable-generic.c, `ptep_set_access_flags`; x86's
    `pte_needs_flush`), but KVM does, for the shadow's entry is gone (arch/x86/kvm/mmu/mmu.c, `kvm_mmu_track_write`).
    """
    gone = old & ~new & (PRESENT | WRITE | USER | ACCESSED | DIRTY)
    return old & PRESENT != 0 and gone == 0 and (old ^ new) & FRAME == 0 and (new >= 0 or old < 0)


@kernel
def store(shadow, places, values, start, trapped):
    """Make the guest's stores from `start` on, and in the shadow what follows from them.

    Parameters
    ----------
    places, values : int64[:]
        gpas of entries, and what is stored there. Stores beyond the guest's memory are lost.
    start : int
        The first store to make.
    trapped : int64[:]
        As long as `places` or longer: filled with the guest frames of the stores that were emulated, and from its end
        on with those of the stores that left a table to the guest.

    Returns
    -------
    (status, next, emulated, let_through) : tuple of int
        DONE; APPEARED with the store after the one whose entry is to be translated now; or UNBACKED with the store
        for whose frame the host must be asked first. How many stores trapped and were emulated, and how many made a
        table fall out of step. The state has the entries read on the way to them (`reads`).
    """
    state = shadow.states[0]
    backing, memory, pages, gfns = shadow.backing, shadow.memory, shadow.pages, shadow.gfns
    state.reads = 0
    emulated = np.int64(0)
    left = np.int64(0)
    status = np.int64(Status.DONE)
    number = start
    while number < len(places) and status == Status.DONE:
        gpa = places[number]
        value = values[number]
        gfn = gpa >> PAGE_SHIFT
        if gfn >= state.frames:
            number += 1
            continue
        hpa, backed = locate(backing, gpa)
        if backed == 0:
            status = np.int64(Status.UNBACKED)
            break
        number += 1
        if gfns[gfn].tables == 0 or not guarded(pages, gfns, gfn):
            unseen_store(state, gfns, gfn, read_gpte(state, memory, hpa), value)
            write_gpte(state, memory, hpa, value)
            continue
        state.reads += direct_reads(state, gfn)
        state.trapped[is_directory(pages, gfns, gfn)] += 1
        end_exit(state, shadow.cpus[0])  # each store is one
        if let_through(state, pages, gfns, gfn):
            left += 1
            trapped[len(trapped) - left] = gfn
            write_gpte(state, memory, hpa, value)
            continue
        trapped[emulated] = gfn
        emulated += 1
        gfns[gfn].mapped = shadow.cpus[0].exit  # for the store itself
        page = np.int64(gfns[gfn].tables)
        zapped = False
        while page:
            first, count = nodes_of(state, pages, page - 1, gpa)
            for node in range(first, first + count):
                if state.sync and read_word(memory, place_of(pages, node)):
                    fold_entry(shadow, state, node)
                    note(state, shadow.cpus[0], np.int64(Work.FOLDED))
                if read_gpte(state, memory, hpa) != value:
                    zapped = zap_entry(shadow, state, node) or zapped
            page = np.int64(pages[page - 1].next)
        if zapped and _gives_more(read_gpte(state, memory, hpa), value):
            state.flush = 1
        reap(shadow, state)
        write_gpte(state, memory, hpa, value)
        used = _used(shadow, state, gfn)
        page = np.int64(gfns[gfn].tables)
        while page:
            after = np.int64(pages[page - 1].next)
            if used:
                pages[page - 1].writes = 0  # what was stored last has been used since: no flood
            pages[page - 1].writes += 1
            first, count = nodes_of(state, pages, page - 1, gpa)
            pages[page - 1].stored = first + 1 if count else np.int64(0)
            if floods(state, pages, page - 1):
                drop_page(shadow, state, page - 1)
            page = after
        count_store(shadow, state, gfn)
        if state.eager and value & PRESENT and gfns[gfn].tables:
            status = np.int64(Status.APPEARED)
    return status, number, emulated, left


@routine
def _fold_below(shadow, state, page):
    """Bring A and D of a large page up to date from all its parts."""
    memory, pages, links = shadow.memory, shadow.pages, shadow.links
    for node in range(page << 9, (page + 1) << 9):
        if read_word(memory, place_of(pages, node)):
            if links[node].target >= 0:
                fold_entry(shadow, state, node)
            else:
                part = -1 - links[node].target
                for inner in range(part << 9, (part + 1) << 9):
                    if read_word(memory, place_of(pages, inner)):
                        fold_entry(shadow, state, inner)


@kernel
def load(shadow, places, values, trapped):
    """Make the guest's loads of the entries at `places` (int64[:], gpas) into `values` (int64[:]).

    What is beyond the guest's memory reads as ones, what the host does not back as zeros. `trapped` (int64[:], as long)
    is filled with the guest frames of the loads that trapped.

    Returns
    -------
    int
        How many trapped. A and D of those are up to date. The state has the entries read on the way to them (`reads`).
    """
    state = shadow.states[0]
    backing, memory, pages, links, gfns = shadow.backing, shadow.memory, shadow.pages, shadow.links, shadow.gfns
    state.reads = 0
    count = np.int64(0)
    for number in range(len(places)):
        gpa = places[number]
        gfn = gpa >> PAGE_SHIFT
        if gfn >= state.frames:
            values[number] = -1
            continue
        if state.hide != Hide.WRITE_PROTECT and gfns[gfn].tables and guarded(pages, gfns, gfn):
            trapped[count] = gfn
            count += 1
            state.reads += direct_reads(state, gfn)
            state.trapped[is_directory(pages, gfns, gfn)] += 1
            end_exit(state, shadow.cpus[0])
            gfns[gfn].mapped = shadow.cpus[0].exit
            page = np.int64(gfns[gfn].tables)
            while page and state.sync:
                first, nodes = nodes_of(state, pages, page - 1, gpa)
                for node in range(first, first + nodes):
                    if read_word(memory, place_of(pages, node)):
                        fold_entry(shadow, state, node)
                        target = links[node].target
                        if target < 0 and pages[-1 - target].origin >= 0:
                            _fold_below(shadow, state, -1 - target)
                        note(state, shadow.cpus[0], np.int64(Work.FOLDED))
                page = np.int64(pages[page - 1].next)
        hpa, backed = locate(backing, gpa)
        values[number] = read_gpte(state, memory, hpa) if backed else np.int64(0)
    return count


@kernel
def resync(shadow):
    """Bring the pages that the vCPU's CR3 leads to back into step, and guard their tables again."""
    state, cpu = shadow.states[0], shadow.cpus[0]
    for number in range(4):
        if cpu.roots[number] != NO_PAGE:
            resync_below(shadow, state, cpu.roots[number])


@kernel
def invalidated(shadow, first, last):
    """Bring the entries of the gvas [first, last] into step: INVLPG of each page there."""
    state = shadow.states[0]
    memory, pages, links = shadow.memory, shadow.pages, shadow.links
    if state.unsynced == 0:
        return
    gva = first
    end = min(last, (1 << 32) - 1) if under_pae(state) else last
    while gva <= end:
        page = root_for(state, shadow.cpus[0], gva)
        level = state.top if page != NO_PAGE else state.top + 1
        while level > 1 and page != NO_PAGE:
            node = page << 9 | index_of(gva, level)
            if read_word(memory, place_of(pages, node)) == 0 or links[node].target >= 0:
                break
            page = -1 - links[node].target
            level -= 1
        if level == 1 and pages[page].unsync:
            refresh(shadow, state, page << 9 | index_of(gva, np.int64(1)))
        span = 1 << (3 + 9 * level)
        gva = (gva & ~(span - 1)) + span
