"""The shadow pages that CR3 leads to: that of the guest's root table or, under PAE, one for each of four PDPTEs."""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, routine
from vmsim.machine.formats import PAGE_SHIFT, PRESENT, SWITCH, TWO_LEVEL
from vmsim.machine.memory import write_word
from vmsim.monitor.shadow.quadrants import root_frame, under_pae
from vmsim.monitor.shadow.records import NO_PAGE
from vmsim.monitor.shadow.tables import drop_page, find_page, make_page, make_table
from vmsim.tables.backing import host_address

__all__ = ["drop_all", "load_root"]


@kernel
def load_root(shadow, gfn, least):
    """Make the shadow of the guest's root table current; return the hpa that CR3 is to hold.

    Under PAE that is the monitor's page of PDPTEs, and a shadow page for each is found or made. -1 says that a page is
    to be made, and the stock has less than `least`.
    """
    state = shadow.states[0]
    pages, gfns = shadow.pages, shadow.gfns
    state.clock += 1
    if under_pae(state):
        return _load_pae_root(shadow, state, gfn, least)
    page = find_page(pages, gfns, gfn, state.top, np.int64(0))
    if page == NO_PAGE:
        if state.stock < least:
            return np.int64(-1)
        page = make_page(shadow, state, gfn, state.top, np.int64(0), np.int64(-1))
    pages[page].stamp = state.clock
    state.roots[0] = page
    return pages[page].hpa


@routine
def _load_pae_root(shadow, state, gfn, least):
    backing, memory, pages, gfns = shadow.backing, shadow.memory, shadow.pages, shadow.gfns
    narrow = state.levels == TWO_LEVEL
    missing = state.pae_root < 0
    for number in range(4):
        table = root_frame(state, gfn, np.int64(number))
        quadrant = np.int64(number if narrow else 0)
        if table >= 0 and not gfns[table].nested and find_page(pages, gfns, table, state.top, quadrant) == NO_PAGE:
            missing = True
    if missing and state.stock < least:
        return np.int64(-1)
    if state.pae_root < 0:
        state.pae_root = make_table(state, memory, shadow.frames, shadow.stock)
    for number in range(4):
        state.roots[number] = NO_PAGE
    for number in range(4):
        table = root_frame(state, gfn, np.int64(number))
        entry = np.int64(0)
        if table >= 0 and gfns[table].nested:
            entry = host_address(backing, table << PAGE_SHIFT) | PRESENT | SWITCH
        elif table >= 0:
            quadrant = np.int64(number if narrow else 0)
            page = find_page(pages, gfns, table, state.top, quadrant)
            if page == NO_PAGE:
                page = make_page(shadow, state, table, state.top, quadrant, np.int64(-1))
            pages[page].stamp = state.clock
            state.roots[number] = page
            entry = pages[page].hpa | PRESENT
        write_word(memory, state.pae_root + (number << 3), entry)
    return state.pae_root


@kernel
def drop_all(shadow):
    """Give up every page."""
    state = shadow.states[0]
    pages = shadow.pages
    for number in range(4):
        state.roots[number] = NO_PAGE
    for page in range(len(pages)):
        if pages[page].level and pages[page].origin < 0:
            drop_page(shadow, state, np.int64(page))
