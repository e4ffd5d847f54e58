"""The bits of page-table entries, from the manuals.

Intel SDM vol. 3A figure 5-11 and tables 5-14 to 5-20 (x86-64 paging), §5.3 (32-bit paging: two levels of 1024 entries
of 4 bytes, the same bits), §5.4 (PAE: a PDPTE has no rights); vol. 3C §30.3.2 (EPT); AMD APM vol. 2 §5.2, §5.3.3 and
§15.25.5 (nested paging: the same formats, every nested access a user access).
"""

from __future__ import annotations

from typing import NamedTuple

P, RW, US, A, D, PS = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7
PAT = 1 << 12  # of a large page: the lowest bit of its address field, and no part of the address
PDPTE_RESERVED = 0b1_1110_0110  # bits 8:5 and 2:1 of a PAE PDPTE (SDM table 5-8; AMD APM vol. 2 figure 5-10)
SWITCH = 1 << 11  # of a shadow entry: the switching bit of agile paging, in a bit that hardware ignores
EPT_R, EPT_W, EPT_X, EPT_A, EPT_D = 1 << 0, 1 << 1, 1 << 2, 1 << 8, 1 << 9
NX = 1 << 63  # no execute, of an entry of 8 bytes (Intel: XD)
ADDRESS = ((1 << 52) - 1) & ~0xFFF
RIGHTS = 0b111  # P, RW, US; or R, W, X
READ, WRITE, FETCH = 0, 1, 2  # kinds of access


class Format(NamedTuple):
    """A nested table's format: what makes an entry present, what any access needs, which flags a walk sets."""

    present: int
    needed: int
    accessed: int
    dirty: int
    guest_walk_writes: bool  # the walker's accesses to guest tables count as writes


FORMATS = {
    "ept": Format(EPT_R | EPT_W | EPT_X, EPT_R, 0, 0, False),
    "ept-ad": Format(EPT_R | EPT_W | EPT_X, EPT_R, EPT_A, EPT_D, True),
    "npt": Format(P, P | US, A, D, True),
}


def width(levels: int) -> int:
    """Return how many bits of an address each table of so many levels translates: 10 in 32-bit paging, which has 2."""
    return 10 if levels == 2 else 9


def span(level: int, width: int = 9) -> int:
    """Return how many bytes an entry of `level` covers."""
    return 1 << (12 + width * (level - 1))


def reach(levels: int) -> int:
    """Return how many bytes tables of so many levels translate; the root of 3 levels (PAE) has four entries."""
    return 1 << 32 if levels < 4 else span(levels + 1)


def highest_leaf(levels: int) -> int:
    """Return the highest level of an entry that may map a page: of 4 MiB in 32-bit paging, 2 MiB in PAE, else 1 GiB."""
    return 2 if levels < 4 else 3


def index(address: int, level: int, width: int = 9) -> int:
    return address // span(level, width) % 2**width
