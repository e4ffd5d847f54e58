"""The bits of page-table entries.

Sources: Intel SDM vol. 3A §5.3 (32-bit paging), §5.5 (4- and 5-level paging, figure 5-11), vol. 3C §30.3.2 (EPT, tables
30-2 to 30-7); AMD APM vol. 2 §5.2 (legacy mode), §5.3 and §15.25 (nested paging uses the host's own format, and treats
every access as a user's).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "ACCESSED",
    "CODE_FETCH",
    "CODE_LOG_FULL",
    "CODE_PRESENT",
    "CODE_RESERVED",
    "CODE_SHADOW",
    "CODE_USER",
    "CODE_WALKING",
    "CODE_WRITE",
    "DIRTY",
    "ENTRIES",
    "EPT",
    "EPT_EXECUTE",
    "FRAME",
    "LARGE",
    "LARGE_ORDERS",
    "NO_EXECUTE",
    "NPT",
    "PAGE_SHIFT",
    "PAT",
    "PDPTE_RESERVED",
    "PRESENT",
    "SEALED",
    "SIZE_SHIFT",
    "SWITCH",
    "TWO_LEVEL",
    "USER",
    "WRITE",
    "NestedFormat",
    "PageSize",
    "reach",
]

PAGE_SHIFT = 12
ENTRIES = 512  # of a table; each level translates 9 bits, but for 32-bit paging
# Levels of 32-bit paging's tables: 1024 entries of 4 bytes each, so that a level translates 10 bits. PAE's are 3 levels
# of 512, also where a processor keeps those of the first in registers and walks two.
TWO_LEVEL = 2

# x86-64 entries; NPT uses the same bits, and so does 32-bit paging.
PRESENT = 1 << 0
WRITE = 1 << 1  # the same bit in an EPT entry
USER = 1 << 2
ACCESSED = 1 << 5
DIRTY = 1 << 6
LARGE = 1 << 7  # PS: the entry maps a 2M (level 2; TWO_LEVEL: 4M) or 1G (level 3) page; the same bit in an EPT entry
SWITCH = 1 << 11  # agile paging, in shadow entries: the table below is the guest's own (a bit that x86-64 ignores)
SEALED = 1 << 10  # ours, of a table on the way of a walk, beside its address: the nested tables let nobody write to it
FRAME = 0x000F_FFFF_FFFF_F000
PAT = 1 << 12  # of an entry that maps a large page: the lowest bit of its address field, and no part of the address
# No execute: of an entry of 8 bytes that maps a page, the highest bit (Intel: XD, SDM vol. 3A §5.6.1, figure 5-11;
# AMD: NX, APM vol. 2 §5.6). Entries are signed words here, so one that has it is below 0. Nobody here sets it in an
# entry that leads to a table, nor does KVM (arch/x86/kvm/mmu/spte.c, `make_spte`); walks do not look for it there.
NO_EXECUTE = -1 << 63
PDPTE_RESERVED = 0b1_1110_0110  # bits 8:5 and 2:1 of a PAE PDPTE (SDM vol. 3A table 5-8; AMD APM vol. 2 figure 5-10)

# EPT entries: bits 0 to 2 are read, write, execute; an entry is present when any of them is set.
EPT_READ = 1 << 0
EPT_EXECUTE = 1 << 2
EPT_WRITE_BACK = 6 << 3
EPT_ACCESSED = 1 << 8
EPT_DIRTY = 1 << 9

# Error code of a page fault (SDM vol. 3A §4.7); CODE_WALKING as bit 33 of an NPF's EXITINFO1 (APM vol. 2 §15.25.6).
CODE_PRESENT = 1 << 0
CODE_WRITE = 1 << 1
CODE_USER = 1 << 2
CODE_RESERVED = 1 << 3
CODE_FETCH = 1 << 4
CODE_WALKING = 1 << 33
CODE_LOG_FULL = 1 << 61  # ours, in place of a fault: the page-modification log is full
CODE_SHADOW = 1 << 62  # ours: an agile walk faulted before it switched, so the monitor's tables want mending

# A translation as the TLBs and walkers pass it on: the hpa of the 4 KiB frame, WRITE, USER, DIRTY as above (USER is
# EPT_EXECUTE's bit: all accesses are a program's, so it is missing only where nobody may fetch) and the page's size in
# two bits that an x86-64 entry leaves to software.
SIZE_SHIFT = 9


class PageSize(IntEnum):
    """Code of a page size; a page of size s covers 1 << (12 + 9 s) bytes and is mapped by an entry of level s + 1.

    A page of 4 MiB takes two translations of 2 MiB (AMD APM vol. 3, CPUID Fn8000_0005 and Fn8000_0006).
    """

    SIZE_4K = 0
    SIZE_2M = 1
    SIZE_1G = 2


def reach(levels: int) -> int:
    """Return how many bytes tables of so many levels translate; the root of 3 levels, PAE, has four entries."""
    return 1 << 32 if levels <= 3 else 1 << (PAGE_SHIFT + 9 * levels)


# Orders of the large pages to try, where pages of an order are wanted: the largest first. 4M is of 32-bit paging alone.
LARGE_ORDERS = {0: (), 9: (9,), 10: (10,), 18: (18, 9)}


class NestedFormat(NamedTuple):
    """What the walker and the monitor must know of a nested table's entries (all values are bit masks)."""

    present: int  # the entry is present when any of these is set
    needed: int  # all of these must be set for any access
    accessed: int
    dirty: int
    table: int  # bits of an entry that points to a table
    page: int  # bits of an entry that maps a page, but for LARGE
    execute: int = 0  # without this, which `page` has, nobody fetches from the page
    no_execute: int = 0  # nor with this

    @property
    def data(self) -> int:
        """Bits of an entry that maps a page that nobody fetches from."""
        return self.page & ~self.execute | self.no_execute


NPT = NestedFormat(
    present=PRESENT,
    needed=PRESENT | USER,
    accessed=ACCESSED,
    dirty=DIRTY,
    table=PRESENT | WRITE | USER | ACCESSED,
    page=PRESENT | WRITE | USER | ACCESSED | DIRTY,
    no_execute=NO_EXECUTE,
)


def EPT(*, ad_bits: bool) -> NestedFormat:  # noqa: N802  (the field's name)
    """Return the EPT format, with accessed and dirty flags (EPTP bit 6) or without."""
    accessed, dirty = (EPT_ACCESSED, EPT_DIRTY) if ad_bits else (0, 0)
    rights = EPT_READ | WRITE | EPT_EXECUTE
    return NestedFormat(
        present=rights,
        needed=EPT_READ,
        accessed=accessed,
        dirty=dirty,
        table=rights | accessed,
        page=rights | EPT_WRITE_BACK | accessed | dirty,
        execute=EPT_EXECUTE,
    )
