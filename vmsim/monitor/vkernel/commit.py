"""Page faults and system calls of a vkernel's guest that wait for nobody, compiled."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from vmsim.contracts.commit import (
    close,
    commit_fault,
    enter_kernel,
    flushes,
    handle,
    invalidate,
    log,
    reserve_fault,
    reserve_range,
    spare,
    spend,
    touch,
)
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import CODE_WRITE, PAGE_SHIFT
from vmsim.machine.memory import width_of
from vmsim.monitor.backing.commit import NestedMode, back_or_bring, can_back, suffices, touch_frame
from vmsim.monitor.shadow.fill import Status
from vmsim.monitor.vkernel.entries import MapTables
from vmsim.monitor.vkernel.tables import calls_for, empties, enter, remove

__all__ = ["PRICES", "Exit", "VkernelMode", "advance"]


class Exit(IntEnum):
    """Why a guest's process leaves its space, as far as compiled code handles it."""

    HOST_FAULT = 0
    REFLECT = 1
    VPAGE_FILL = 2
    SYSCALL = 3
    INVAL = 4


# What faults cost, and what was done at those that are not yet collected.
PRICES = np.dtype(
    (
        np.record,
        [
            ("fault", "i8"),  # cycles of a fault that the host gets
            ("walk", "i8"),  # for each entry of the guest's tables
            ("entered", "i8"),
            ("each_table", "i8"),
            ("reflect", "i8"),
            ("call", "i8"),  # of a system call of the guest's kernel
            ("remove", "i8"),  # and for each page that it has taken out of the map
            ("flushes", "i8"),  # FORGET_SPACE: a reflection, two loads of CR3, has the processor forget it; 0: not
            ("cr3", "i8"),  # gpa of the guest's root table
            ("root", "i8"),  # hpa of the map's
            ("filled", "i8"),
            ("walked", "i8"),
            ("made", "i8"),
            ("zapped", "i8"),
        ],
    )
)


class VkernelMode(NamedTuple):
    """The maps of one vkernel."""

    nested: NestedMode  # the pages of its memory
    maps: MapTables
    prices: np.ndarray  # PRICES[1]
    path: np.ndarray  # int64[6], scratch
    freed: np.ndarray  # int64[TABLE_ROOM], scratch


@routine
def _back(mode, bill, gfn, write):
    """Have the host back a guest frame; return whether that could be done."""
    cycles = back_or_bring(mode.nested, bill, gfn, write)
    if cycles < 0:
        return False
    spend(bill, cycles)
    return True


@touch.register(VkernelMode)
@leaf
def _touch(mode, bill, gfn):
    """Write to a guest frame: if it has no host frame, that is a fault of the kernel's process."""
    touch_frame(mode.nested, bill, gfn)


@routine
def _advance(mode, bill, gva, code, begun, tables):
    """Take a page fault of the hardware as far as nobody waits; return (status, value).

    The page is entered in the map, and guest frames are backed. New tables of the map are made of `tables`, frames that
    were waited for, as many as `enter` has asked for; where there are none, of the pool. `begun` says that the fault
    was begun, and what it costs by itself is paid. With DONE it is over.
    """
    prices, walk, pool = mode.prices[0], mode.maps.walks[0], mode.nested.pool
    if not begun:
        spend(bill, prices.fault)
    used = np.int64(0)
    while True:
        given = tables if len(tables) else pool[1 + pool[0] - used : 1 + pool[0]]
        status, value = enter(mode.maps, prices.cr3, prices.root, gva, code & CODE_WRITE != 0, given)
        if status == Status.NEED:
            if len(tables) or not suffices(mode.nested, 0, value):
                return status, value
            used = value
        elif status != Status.UNBACKED:
            break
        elif not _back(mode, bill, value, code & CODE_WRITE != 0):
            return status, value
    if status == Status.DONE or status == Status.FAULT:
        prices.walked += walk.reads
        spend(bill, walk.reads * prices.walk)
    if status == Status.DONE:
        pool[0] -= 0 if len(tables) else value
        prices.filled += 1
        prices.made += value
        spend(bill, prices.entered + value * prices.each_table)
        bill.exits[Exit.VPAGE_FILL] += 1
        close(bill, Exit.VPAGE_FILL, False)
    return status, value


@kernel
def advance(mode, bills, gva, code, begun, tables):
    """Take a page fault of the hardware as far as nobody waits; return what is left of it, (status, value)."""
    return _advance(mode, bills[0], gva, code, begun, tables)


@handle.register(VkernelMode)
@routine
def _handle(mode, guest, reason, gva, gpa, code):
    """Enter the page in the map, or hand the fault to the guest's kernel."""
    bill, prices = guest.bills[0], mode.prices[0]
    start = bill.now
    status, value = _advance(mode, bill, gva, code, False, mode.freed[:0])
    if status == Status.DONE:
        log(bill, start)
        return True
    if status == Status.FAULT:
        missing = reserve_fault(guest, mode, gva, value)
        if missing >= 0:
            spend(bill, prices.reflect)
            bill.forget |= prices.flushes
            bill.exits[Exit.REFLECT] += 1
            close(bill, Exit.REFLECT, True)
            commit_fault(guest, mode, gva, value, missing)
            return True
    bill.status, bill.value = status, value
    return False


@spare.register(VkernelMode)
@leaf
def _spare(mode, gfn, count):
    return can_back(mode.nested, gfn, count)


@enter_kernel.register(VkernelMode)
@leaf
def _enter_kernel(mode, bill):
    """Hand a system call of the guest's process to the guest's kernel."""
    spend(bill, mode.prices[0].reflect)
    bill.forget |= mode.prices[0].flushes
    bill.exits[Exit.SYSCALL] += 1
    close(bill, Exit.SYSCALL, False)


@flushes.register(VkernelMode)
@leaf
def _flushes(mode):
    return False


@invalidate.register(VkernelMode)
@routine
def _invalidate(mode, bill, first, last):
    """Take pages out of the map, by a call for each, or for each 2 MiB."""
    prices, levels = mode.prices[0], mode.maps.walks[0].levels
    _, pages, _ = remove(mode.maps, prices.root, first, last, mode.path, mode.freed)
    prices.zapped += pages
    calls = calls_for(first >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1, np.int64(1) << width_of(levels))
    spend(bill, pages * prices.remove + calls * prices.call)
    bill.exits[Exit.INVAL] += calls
    close(bill, Exit.INVAL, False)


@reserve_range.register(VkernelMode)
@routine
def _reserve_range(mode, first, limit):
    """Leave it to the host's process to take tables out of the map that become empty: they go to the pool."""
    return not empties(mode.nested.memory, mode.prices[0].root, mode.maps.walks[0].levels, first, limit - 1)
