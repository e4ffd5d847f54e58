"""The shadow filled without an access that asks for it: as soon as the guest makes entries, or loads CR3 (eager)."""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, routine
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT
from vmsim.machine.memory import read_word
from vmsim.monitor.shadow.fill import Status, child_of, prefill
from vmsim.monitor.shadow.quadrants import first_frame, guest_place, nodes_of, read_gpte
from vmsim.monitor.shadow.records import NO_PAGE, SPARE
from vmsim.monitor.shadow.sync import wanted
from vmsim.monitor.shadow.tables import place_of, reach, reap
from vmsim.tables.backing import UNBACKED, host_address, locate

__all__ = ["sweep", "sweep_all"]

_DONE = np.int64(Status.DONE)


@routine
def _sweep(shadow, state, top, first, last):
    """Translate the entries [first, last] of a page and all that hangs below them, as far as the stock lasts."""
    backing, memory, pages, links, gfns = shadow.backing, shadow.memory, shadow.pages, shadow.links, shadow.gfns
    depth = np.int64(0)
    stack = state.stack  # of (page, next index, last index)
    stack[0], stack[1], stack[2] = top, first, last
    while depth >= 0:
        page = stack[3 * depth]
        at = stack[3 * depth + 1]
        if at > stack[3 * depth + 2]:
            depth -= 1
            continue
        stack[3 * depth + 1] = at + 1
        level = np.int64(pages[page].level)
        node = page << 9 | at
        origin = np.int64(-1)
        if pages[page].origin < 0:
            gpa = guest_place(state, pages, node)
            reach(state, shadow.cpus[0], gfns, np.int64(pages[page].gfn))
            hpa = host_address(backing, gpa)
            if hpa == UNBACKED:  # of a table that CR3 leads to, and that the host has taken
                continue
            entry = read_gpte(state, memory, hpa)
            if not wanted(state, entry, level):
                continue
            table = level > 1 and entry & LARGE == 0
            below = (entry & FRAME) >> PAGE_SHIFT
            if not table:
                origin = gpa
                below = first_frame(state, node, entry, level)
        else:
            origin, table = pages[page].origin, False
            below = pages[page].gfn + (at << (9 * (level - 1)))
            entry = read_gpte(state, memory, host_address(backing, origin))
            entry = (entry & ~FRAME) | below << PAGE_SHIFT
        old = read_word(memory, place_of(pages, node))
        if not table:
            if old and links[node].target >= 0:
                continue
            size = prefill(shadow, state, node, entry, level)
            if size == 0 or size == level:
                continue
        if shadow.cpus[0].stock < SPARE:
            return np.int64(Status.NEED)
        if table and gfns[below].tables == 0 and locate(backing, below << PAGE_SHIFT)[1] == 0:
            continue
        child = child_of(shadow, state, node, entry, level - 1, origin, below)
        if child == NO_PAGE:
            return np.int64(Status.LIMIT)
        if pages[child].stamp != state.clock or pages[child].origin >= 0 or old == 0:
            pages[child].stamp = state.clock
            depth += 1
            stack[3 * depth], stack[3 * depth + 1], stack[3 * depth + 2] = child, np.int64(0), np.int64(511)
    return _DONE


@kernel
def sweep(shadow, gpa):
    """Translate the guest's entry at `gpa`, in each shadow that its table has, and all that hangs below it.

    Pages that the host does not back are left out, and, where A is not the hardware's, those not yet accessed.
    """
    state, pages = shadow.states[0], shadow.pages
    state.clock += 1
    page = np.int64(shadow.gfns[gpa >> PAGE_SHIFT].tables)
    status = _DONE
    while page and status == Status.DONE:
        pages[page - 1].stamp = state.clock
        node, count = nodes_of(state, pages, page - 1, gpa)
        if count:
            status = _sweep(shadow, state, page - 1, node & 511, (node & 511) + count - 1)
        page = np.int64(pages[page - 1].next)
    reap(shadow, state)
    return status


@kernel
def sweep_all(shadow):
    """Translate all that hangs below the tables that CR3 leads to, as `sweep` does."""
    state = shadow.states[0]
    state.clock += 1
    status = _DONE
    for number in range(4):
        page = shadow.cpus[0].roots[number]
        if page != NO_PAGE and status == Status.DONE:
            shadow.pages[page].stamp = state.clock
            status = _sweep(shadow, state, page, np.int64(0), np.int64(511))
    reap(shadow, state)
    return status
