"""The regions of an address space in an array, as both halves of a kernel read and change them, compiled.

Row 0 has the number of regions and the end of the heap; each row after it a region's start, end and protection.
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import PAGE_SHIFT

__all__ = [
    "COUNT",
    "END",
    "FILE",
    "HEAP",
    "HUGE",
    "KINDS",
    "NOT_FORKED",
    "NOT_HUGE",
    "NO_REGION",
    "RIGHTS_OF",
    "SHARED",
    "START",
    "WIPED",
    "WRITE",
    "around",
    "declare",
    "of_mapping",
    "remove",
    "room_for",
]

ADDRESSES = 1 << 57  # end of what five levels translate
WRITE = 2  # of the protection bits
SHARED, FILE = 8, 16  # and of what kind a mapping is, which mprotect leaves as it is; else private, of no file
KINDS = SHARED | FILE
NOT_FORKED, WIPED = 32, 64  # what a fork does not copy: a child has no such mapping, or an empty one
HUGE, NOT_HUGE = 256, 512  # its program wants huge pages in it, or none
RIGHTS_OF = 7  # the protection bits; what is above them mprotect leaves as it is
_MADE = 10  # the first bit of where a mapping of a file was made, in pages
NO_REGION = -1  # the protection of what lies outside every region
START, END, RIGHTS = range(3)  # columns
COUNT, HEAP = range(2)  # of row 0
_MORE = 2  # regions that one change can add


@leaf
def room_for(regions):
    """Return whether there is room for one more change."""
    return regions[0, COUNT] + _MORE < len(regions)


@leaf
def _before(regions, column, address):
    """Return how many regions start (or, by their column, end) before an address."""
    low = np.int64(0)
    high = regions[0, COUNT]
    while low < high:
        middle = (low + high) >> 1
        if regions[middle + 1, column] < address:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def around(regions, address):
    """Return (start, end, protection) of the region that holds `address`, or of the gap there (NO_REGION).

    `regions` are int64[room, 3], here and below.
    """
    count = _before(regions, START, address + 1)
    if count and address < regions[count, END]:
        return regions[count, START], regions[count, END], regions[count, RIGHTS]
    start = regions[count, END] if count else np.int64(0)
    end = regions[count + 1, START] if count < regions[0, COUNT] else np.int64(ADDRESSES)
    return start, end, np.int64(NO_REGION)


@leaf
def _set(regions, row, start, end, rights):
    regions[row, START] = start
    regions[row, END] = end
    regions[row, RIGHTS] = rights


@routine
def _replace(regions, first, last, start, end, rights):
    """Put a region, or with NO_REGION a gap, in the place of those numbered [first, last), which it cuts."""
    left, cut, left_rights = start, start, np.int64(NO_REGION)
    right, right_rights = end, np.int64(NO_REGION)
    if first < last:
        if regions[first + 1, START] < start:
            left, left_rights = regions[first + 1, START], regions[first + 1, RIGHTS]
        if regions[last, END] > end:
            right, right_rights = regions[last, END], regions[last, RIGHTS]
    if rights != NO_REGION:  # neighbours of one protection are one region
        if left_rights == rights:
            start, left_rights = left, np.int64(NO_REGION)
        if right_rights == rights:
            end, right_rights = right, np.int64(NO_REGION)
    made = np.int64(0)  # numpy's own truths add up to one
    for each in (left_rights, rights, right_rights):
        made += each != NO_REGION
    count = regions[0, COUNT]
    more = made - (last - first)
    if more > 0:
        for row in range(count, last, -1):
            _set(regions, row + more, regions[row, START], regions[row, END], regions[row, RIGHTS])
    elif more < 0:
        for row in range(last + 1, count + 1):
            _set(regions, row + more, regions[row, START], regions[row, END], regions[row, RIGHTS])
    regions[0, COUNT] = count + more
    row = first + 1
    if left_rights != NO_REGION:
        _set(regions, row, left, cut, left_rights)
        row += 1
    if rights != NO_REGION:
        _set(regions, row, start, end, rights)
        row += 1
    if right_rights != NO_REGION:
        _set(regions, row, end, right, right_rights)


@leaf
def of_mapping(rights, start):
    """Return the protection of a mapping that is made at `start`.

    That of a file has where it was made in it: so it never becomes one region with another file's beside it.
    """
    return rights | (start >> PAGE_SHIFT) << _MADE if rights & FILE else rights


@kernel
def declare(regions, start, end, rights):
    """Make [start, end) a region of protection `rights`, whatever was there; `room_for` has said that it can be."""
    if start < end:
        first, last = _before(regions, END, start), _before(regions, START, end + 1)  # neighbours that touch too
        _replace(regions, first, last, start, end, rights)


@kernel
def remove(regions, start, end):
    """Make [start, end) lie outside every region; `room_for` has said that it can be."""
    first, last = _before(regions, END, start + 1), _before(regions, START, end)
    if start < end and first < last:
        _replace(regions, first, last, start, end, np.int64(NO_REGION))
