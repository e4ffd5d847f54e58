"""What a shadow monitor keeps of its pages: one record of each page, of each entry, of each guest frame."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

__all__ = ["NO_PAGE", "SPARE", "Hide", "ShadowTables", "Work", "make_shadow", "of_cpu"]


class Hide(IntEnum):
    """How a guest table that is shadowed is kept from the guest."""

    WRITE_PROTECT = 0  # stores trap
    USER_BIT = 1  # loads and stores trap
    PRESENT_BIT = 2  # likewise, and the monitor itself must map the table to reach it


class Work(IntEnum):
    """What the kernels here and in fill.py count, and the monitor pays for."""

    FILLED = 0  # entries that map a page, written
    ZAPPED = 1  # entries cleared
    MADE = 2  # pages made
    DROPPED = 3  # pages given up
    FOLDED = 4  # entries whose A and D were brought up to date for a load or store
    CHECKED = 5  # entries compared in a resync
    MAPPED = 6  # tables that the monitor mapped to reach them, because their present bit hides them from it, too


NO_PAGE = -1
SPARE = 8  # frames to have at hand before a walk: a page for each level, and two more for a large page split

SHADOW = np.dtype(
    (
        np.record,
        [
            ("frames", "i8"),  # guest frames: those above do not exist
            ("levels", "i8"),  # of the guest's tables
            ("top", "i8"),  # level of the shadow pages that CR3 leads to: 2 under PAE, else that of the guest's root
            ("largest", "i8"),  # level above which no entry maps a page
            ("hide", "i8"),
            ("sync", "i8"),  # 1: A and D are the hardware's, brought up to date when the guest loads an entry
            ("unsync", "i8"),  # 1: after the first, stores to tables of level 1 are let through
            ("eager", "i8"),
            ("flood", "i8"),  # emulated stores to one table after which its shadow goes; 0: never
            ("chunk", "i8"),
            ("threshold", "i8"),  # agile paging: emulated stores in an interval that leave a table to nested walks
            ("first", "i8"),  # agile paging: frames with counts, flags or nested tables lie in [first, last)
            ("last", "i8"),
            ("to_nested", "i8"),  # agile paging: tables that went so far
            ("to_shadow", "i8"),  # and came back
            ("used", "i8"),
            ("free", "i8"),  # first of the free pages, + 1
            ("doomed", "i8"),  # first of the parts of large pages that nothing points to any more, + 1
            ("clock", "i8"),
            ("unsynced", "i8"),  # pages out of step
            ("unseen", "i8"),  # agile paging: how often the guest has taken away what TLBs may still hold
            ("flush", "i8"),  # 1: the monitor has taken away what TLBs may still hold, and must flush all of them
            ("remote", "i8"),  # 1: what the guest asked for has, and it flushes the vCPU's own; the others' the monitor
            ("work", "i8", (len(Work),)),  # what was done so far
            ("prices", "i8", (len(Work),)),  # cycles of one of each
            ("reads", "i8"),  # entries of the guest's tables that the monitor's last walk read
            ("trapped", "i8", (2,)),  # the kernel's accesses to tables of level 1, and to those above (directories)
            ("logging", "i8"),  # 1: an entry is writable only once its page is in the dirty log
            ("nx", "i8"),  # 1: large pages are not executable
            ("splits", "i8"),  # of those, so far, because code was fetched
            ("marked", "i8"),  # levels, as bits, at which the last guest walk has set A
            ("exit", "i8"),  # number of the last exit that has begun, below 2**31
            ("code", "i8"),  # of the fault that the last guest walk met
            ("entry", "i8", (6,)),  # the guest's entries that the last guest walk read, by level
            ("place", "i8", (6,)),  # and their gpas
            ("stack", "i8", (64,)),
            ("way", "i8", (64,)),
        ],
    )
)
# What a shadow monitor keeps of each vCPU.
CPU = np.dtype(
    (
        np.record,
        [
            ("roots", "i8", (4,)),  # pages that its CR3 leads to; under PAE one for each PDPTE
            ("pae_root", "i8"),  # hpa of those four entries; NO_PAGE: not made yet
            ("pdpte", "i8", (4,)),  # those of a PAE guest, as its last load of CR3 has read them
            ("stock", "i8"),  # frames at hand
            ("stale", "i8"),  # it has taken away what its TLB may still hold, and has not invalidated it yet
            ("seen", "i8"),  # `unseen` when its TLB was last flushed
            ("due", "i8"),  # cycles of what was done for it and has not been paid for yet
            ("protected", "i8"),  # 1: but for the log, the fault that is handled would not have been
            ("split", "i8"),  # 1: that fault is a fetch, and has split a large page
            ("exit", "i8"),  # number of the exit that is handled
            ("supervisor", "i8"),  # 1: the access that faulted is the kernel's (CPL 0)
        ],
    )
)
PAGE = np.dtype(
    (
        np.record,
        [
            ("gfn", "i8"),  # of the table, or the first of the part of a large page
            ("origin", "i8"),  # gpa of the guest's entry that maps the large page; -1: this is a table's shadow
            ("hpa", "i8"),
            ("stamp", "i8"),  # clock when last walked through
            ("level", "i4"),  # 0: free
            ("next", "i4"),  # page + 1: of the same gfn, or the next free or doomed one
            ("parents", "i4"),  # entry + 1: first of those that point here
            ("writes", "i4"),  # emulated stores since it was last walked through
            ("unsync", "i4"),
            ("quadrant", "i4"),  # which part of a table of 4-byte entries it stands for
            ("stored", "i4"),  # entry + 1: the last that an emulated store changed
            ("roots", "i4"),  # CR3s and PDPTEs that lead here (KVM's root_count)
            ("split", "i8"),  # number of the split that made it, to be fetched from; 0: it is for another reason
            ("invalid", "i4"),  # 1: it is no table's shadow any more, and stays until no CR3 leads here
        ],
    )
)
LINK = np.dtype((np.record, [("target", "i8"), ("next", "i4"), ("prev", "i4")]))  # gfn or -1 - page; entry + 1
GFN = np.dtype(
    (
        np.record,
        [
            ("leaves", "i4"),  # entry + 1: first of those that map it
            ("tables", "i4"),  # page + 1: first of its shadows
            ("writes", "i2"),  # agile paging: emulated stores in this interval
            ("nested", "i1"),  # agile paging: level of a table that is walked nested; 0: it is none
            ("dirty", "i1"),  # agile paging: stored to unseen in this interval
            ("mapped", "i4"),  # exit in which the monitor last had this table at hand
        ],
    )
)


class ShadowTables(NamedTuple):
    """The shadow pages of a VM and what they are made of: what all kernels of a shadow monitor work on.

    `cpus` and `stock` are those of the vCPU whose exit is handled (`of_cpu`).
    """

    memory: np.ndarray  # int64[:], host-physical memory
    backing: np.ndarray  # int64[frames], where guest memory lies
    states: np.ndarray  # SHADOW[1]
    cpus: np.ndarray  # CPU[1]
    pages: np.ndarray  # PAGE[limit]
    links: np.ndarray  # LINK[limit << 9]
    gfns: np.ndarray  # GFN[frames]
    frames: np.ndarray  # FRAME_RECORD[:], the host's
    stock: np.ndarray  # int64[:], frames to make pages of
    dirty: np.ndarray  # bool[frames], the dirty log: written to since it was read last; empty: there is none


def make_shadow(
    memory: np.ndarray,
    backing: np.ndarray,
    frames: np.ndarray,
    limit: int,
    levels: int = 4,
    *,
    cpus: int = 1,
    logged: bool = False,
) -> ShadowTables:
    """Return the tables of a VM, with room for `limit` pages and none made; parameters as the fields.

    The guest's tables have so many `levels`; with 2 and 3 the shadow's are PAE's. `logged`: there is a dirty log.
    `cpus` and `stock` are those of so many vCPUs, CPU[cpus] and int64[cpus, :].
    """
    states = np.zeros(1, SHADOW)
    states["frames"] = states["first"] = len(backing)
    states["levels"] = levels
    states["top"] = levels if levels > 3 else 2
    states["free"] = 1
    pages = np.zeros(limit, PAGE)
    pages["next"] = np.arange(2, limit + 2)
    pages["next"][-1] = 0
    links, gfns = np.zeros(limit << 9, LINK), np.zeros(len(backing), GFN)
    dirty = np.zeros(len(backing) if logged else 0, np.bool_)
    each = np.zeros(cpus, CPU)
    each["roots"] = each["pae_root"] = NO_PAGE
    stocks = np.zeros((cpus, limit + 1024), np.int64)
    return ShadowTables(memory, backing, states, each, pages, links, gfns, frames, stocks, dirty)


def of_cpu(tables: ShadowTables, number: int) -> ShadowTables:
    """Return the tables of a VM as those of one vCPU work on them."""
    return tables._replace(cpus=tables.cpus[number : number + 1], stock=tables.stock[number])
