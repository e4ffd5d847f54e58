"""The shadow pages that a vCPU's CR3 leads to: that of the guest's root or, under PAE, one for each of four PDPTEs."""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, routine
from vmsim.machine.formats import PAGE_SHIFT, PRESENT, SWITCH, TWO_LEVEL
from vmsim.machine.memory import write_word
from vmsim.monitor.shadow.quadrants import root_frame, under_pae
from vmsim.monitor.shadow.records import NO_PAGE
from vmsim.monitor.shadow.tables import drop_page, find_page, make_page, make_table, set_root
from vmsim.tables.backing import UNBACKED, host_address

__all__ = ["drop_all", "load_root"]


@kernel
def load_root(shadow, gfn, least):
    """Make the shadow of the guest's root table the vCPU's; return the hpa that CR3 is to hold.

    Under PAE that is the vCPU's page of PDPTEs, and a shadow page for each is found or made. Of a table that is walked
    nested it is the table's own, with SWITCH. -1 says that a page is to be made, and the stock has less than `least`;
    -2 that the host does not back the table, or one of them.
    """
    state = shadow.states[0]
    pages, gfns = shadow.pages, shadow.gfns
    state.clock += 1
    if under_pae(state):
        return _load_pae_root(shadow, state, gfn, least)
    if gfns[gfn].nested:
        set_root(shadow, state, 0, np.int64(NO_PAGE))
        if state.logging:  # as of `fill`
            shadow.dirty[gfn] = True
        hpa = host_address(shadow.backing, gfn << PAGE_SHIFT)
        return np.int64(-2) if hpa == UNBACKED else hpa | SWITCH
    page = find_page(pages, gfns, gfn, state.top, np.int64(0))
    if page == NO_PAGE:
        if shadow.cpus[0].stock < least:
            return np.int64(-1)
        page = make_page(shadow, state, gfn, state.top, np.int64(0), np.int64(-1))
    pages[page].stamp = state.clock
    set_root(shadow, state, 0, page)
    return pages[page].hpa


@routine
def _load_pae_root(shadow, state, gfn, least):
    backing, memory, pages, gfns = shadow.backing, shadow.memory, shadow.pages, shadow.gfns
    cpu, narrow = shadow.cpus[0], state.levels == TWO_LEVEL
    missing = cpu.pae_root < 0
    for number in range(4):
        table = root_frame(state, cpu, gfn, np.int64(number))
        quadrant = np.int64(number if narrow else 0)
        if table < 0:
            continue
        if gfns[table].nested:
            if host_address(backing, table << PAGE_SHIFT) == UNBACKED:
                return np.int64(-2)
        elif find_page(pages, gfns, table, state.top, quadrant) == NO_PAGE:
            missing = True
    if missing and cpu.stock < least:
        return np.int64(-1)
    if cpu.pae_root < 0:
        cpu.pae_root = make_table(shadow)
    for number in range(4):
        set_root(shadow, state, number, np.int64(NO_PAGE))
    for number in range(4):
        table = root_frame(state, cpu, gfn, np.int64(number))
        entry = np.int64(0)
        if table >= 0 and gfns[table].nested:
            if state.logging:
                shadow.dirty[table] = True
            entry = host_address(backing, table << PAGE_SHIFT) | PRESENT | SWITCH
        elif table >= 0:
            quadrant = np.int64(number if narrow else 0)
            page = find_page(pages, gfns, table, state.top, quadrant)
            if page == NO_PAGE:
                page = make_page(shadow, state, table, state.top, quadrant, np.int64(-1))
            pages[page].stamp = state.clock
            set_root(shadow, state, number, page)
            entry = pages[page].hpa | PRESENT
        write_word(memory, cpu.pae_root + (number << 3), entry)
    return cpu.pae_root


@kernel
def drop_all(shadow):
    """Give up every page; those that CR3s of other vCPUs lead to lose their entries."""
    state = shadow.states[0]
    pages = shadow.pages
    for number in range(4):
        set_root(shadow, state, number, np.int64(NO_PAGE))
    for page in range(len(pages)):
        if pages[page].level and pages[page].origin < 0:
            drop_page(shadow, state, np.int64(page))
