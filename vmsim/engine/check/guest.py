"""What must hold of a guest's own tables and frames, found by reading every table of every process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmsim.engine.virtual_machine import VirtualMachine
from vmsim.frames.records import State
from vmsim.host.guest_memory import GuestMemory
from vmsim.jit import kernel
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT, WRITE
from vmsim.machine.memory import read_entry, width_of
from vmsim.tables.backing import UNBACKED, host_address

__all__ = ["check_guest", "count_distinct", "gather", "gather_all", "kept_address"]

Column = NDArray[np.int64]


@kernel
def gather(memory, root, levels, last, backing, index, table, columns):  # type: ignore[no-untyped-def]
    """List the entries of a tree of tables that lie where `backing` says, or where they point (IDENTITY).

    Of the root's, those from number `last` on are left out.
    Fills the rows of `columns`, int64[4, n]: the place of each entry, its value, the frame it points to, and the level
    of the table there (0, -1, -2 for pages of 4K, 2M (4M), 1G). Returns how many there are; no more than n are filled.
    `index` and `table` are scratch, int64[6] each.
    """
    count = 0
    width = width_of(levels)
    index[:] = 0
    level = levels
    table[level] = root
    while level <= levels:
        if index[level] == (last if level == levels else 1 << width):
            index[level] = 0
            level += 1
            continue
        place = table[level] + (index[level] << (PAGE_SHIFT - width))
        index[level] += 1
        hpa = host_address(backing, place)
        entry = read_entry(memory, hpa, width) if hpa != UNBACKED else 0
        if entry == 0:
            continue
        page = level == 1 or entry & LARGE != 0
        if count < columns.shape[1]:
            columns[0, count] = place
            columns[1, count] = entry
            columns[2, count] = (entry & FRAME) >> PAGE_SHIFT
            columns[3, count] = 1 - level if page else level - 1
        count += 1
        if not page:
            level -= 1
            table[level] = entry & FRAME
            index[level] = 0
    return count


def gather_all(memory: Column, roots: list[int], levels: int, backing: Column, last: int | None = None) -> Column:
    """Return the entries of several trees, as `gather` lists them, int64[4, n]; without `last`, all of them."""
    parts = []
    last = last or 1 << width_of(levels)
    for root in roots:
        columns = np.empty((4, 512), np.int64)
        scratch = np.empty(6, np.int64), np.empty(6, np.int64)
        count = gather(memory, root, levels, last, backing, *scratch, columns)
        if count > columns.shape[1]:
            columns = np.empty((4, count), np.int64)
            gather(memory, root, levels, last, backing, *scratch, columns)
        parts.append(columns[:, :count])
    return np.concatenate(parts, axis=1)


def count_distinct(numbers: Column) -> int:
    """Return how many different numbers there are: for the few of a check much sooner than `np.unique`."""
    ordered = np.sort(numbers)
    return len(ordered[:1]) + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def _gather_kept(slot: GuestMemory, roots: list[int], levels: int, last: int) -> Column:
    """Return what `gather_all` does where the host has taken some of the tables: they are read where they are kept."""
    width, found = width_of(levels), list[tuple[int, int, int, int]]()

    def look(table: int, level: int) -> None:
        words = slot.page(table >> PAGE_SHIFT)
        entries = words if width == 9 else words.view(np.uint32).astype(np.int64)
        for index in np.flatnonzero(entries[: last if level == levels else None]).tolist():
            entry, place = int(entries[index]), table + (index << (PAGE_SHIFT - width))
            page = level == 1 or entry & LARGE != 0
            found.append((place, entry, (entry & FRAME) >> PAGE_SHIFT, 1 - level if page else level - 1))
            if not page and entry & FRAME < len(slot.backing) << PAGE_SHIFT:
                look(entry & FRAME, level - 1)

    for root in roots:
        look(root, levels)
    return np.array(found, np.int64).reshape(-1, 4).T


def kept_address(slot: GuestMemory, root: int, levels: int, gva: int) -> int:
    """Return the gpa of `gva` by tables of which the host may have taken some, or UNBACKED."""
    width, table = width_of(levels), root
    for level in range(levels, 0, -1):
        if table >> PAGE_SHIFT >= len(slot.backing):
            return UNBACKED
        words = slot.page(table >> PAGE_SHIFT)
        index = gva >> (PAGE_SHIFT - width + width * level) & (1 << width) - 1
        entry = int((words if width == 9 else words.view(np.uint32))[index])
        if not entry & PRESENT:
            return UNBACKED
        if level == 1 or entry & LARGE:
            offset = (1 << (PAGE_SHIFT - width + width * level)) - 1
            return int((entry & FRAME & ~offset) | (gva & offset))
        table = entry & FRAME
    raise AssertionError("no level is below 1")


def _mapped(values: Column, targets: Column, below: Column, width: int) -> tuple[Column, Column, Column]:
    """Return the frames that entries map, how many map each, and those that several do of which one may write."""
    pages, writable = [], []
    for size in sorted({0, *(-below[below <= 0]).tolist()}):
        which, frames = below == -size, 1 << width * size
        pages.append((targets[which][:, None] + np.arange(frames)).ravel())
        writable.append(np.repeat(values[which] & WRITE != 0, frames))
    every = np.concatenate(pages)
    if count_distinct(every) == len(every):  # as nearly always
        return every, np.ones_like(every), every[:0]
    found, where, entries = np.unique(every, return_inverse=True, return_counts=True)
    writers = np.bincount(where, np.concatenate(writable), len(found))
    return found, entries, found[(entries > 1) & (writers > 0)]


def check_guest(vm: VirtualMachine, memory: Column, fail: Callable[[str], None]) -> None:
    """Check a guest's processes: a table is one process's, a shared page nobody's to write, and no frame is lost."""
    kernel_, name = vm.kernel, vm.spec.name
    roots = kernel_.roots
    half = kernel_.tables.end // kernel_.tables.span(vm.spec.guest_levels)  # a program's entries of a root
    if vm.slot and vm.slot.elsewhere:
        _, values, targets, below = _gather_kept(vm.slot, roots, vm.spec.guest_levels, half)
    else:
        _, values, targets, below = gather_all(memory, roots, vm.spec.guest_levels, vm.kernel.mmu.backing, half)
    if (targets + (1 << -9 * np.minimum(below, 0)) > len(kernel_.frames.frames)).any():
        if vm.ending is None:
            fail(f"sharing: an entry of {name} points beyond its memory")
        return  # that is what has ended it
    tables = np.concatenate((targets[below > 0], np.array(roots) >> PAGE_SHIFT, np.array(kernel_.own_tables, np.int64)))
    if count_distinct(tables) < len(tables):
        fail(f"sharing: two entries of {name} point to one table")
    frames, entries, shared_writable = _mapped(values, targets, below, kernel_.tables.width)
    if len(shared_writable):
        frame = int(shared_writable[0])
        fail(f"sharing: frame {frame} of {name} is mapped {int(entries[frames == frame][0])} times, and writable")
    states = kernel_.frames.frames["state"]
    if (states[tables] != State.TABLE).any() or (states[frames] != State.GUEST).any():
        fail(f"sharing: a frame that {name} maps is not in the state its entry implies")
    if vm.finish is None or vm.ending or vm.crew.cut_short:  # an operation may be under way, or was when it ended
        return
    zeros = np.array(kernel_.zeros.frames, np.int64)  # which the kernel itself counts as the first to map
    if (entries != kernel_.sharing.entries(frames) - np.isin(frames, zeros)).any():
        fail(f"sharing: a frame of {name} is mapped more or less often than its kernel counts")
    if not vm.spec.bare:
        used = int((states != State.FREE).sum())
        held = sum(driver.held for driver in vm.drivers)
        known = len(tables) + len(np.union1d(frames, zeros)) + len(vm.frames.ready.held()) + held + vm.frames.kept
        if used != known:
            fail(f"sharing: {used - known} frames of the kernel of {name} are neither mapped nor free")
