"""The loop of a reader: valgrind lackey's text into accesses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import kernel, leaf
from vmsim.workloads.readers.strings import accessed, fetched, first_byte
from vmsim.workloads.stream import Addresses, Counts, Kinds

__all__ = ["BROKEN", "DONE", "FETCHED", "FULL", "NO_PAGE", "OTHER", "lackey"]

DONE, FULL, OTHER, BROKEN = 0, 1, 2, 3
_LARGEST = 4096  # bytes of one access; lackey's own limit is 512
_FIRST = 1  # the first fetch of each page is kept; 0: none is, 2: all are
FETCHED = 1 << 12  # pages of which is remembered that they were; of two in one place the later
NO_PAGE = -(1 << 62)


@leaf
def _had(pages: Addresses, page: int) -> bool:
    """Note that a page is fetched from; return whether that was noted."""
    place = page & (FETCHED - 1)
    had: bool = pages[place] == page
    pages[place] = page
    return had


@kernel
def lackey(
    text: NDArray[np.uint8],
    fetch: np.int64,
    pages: Addresses,
    mask: np.int64,
    state: NDArray[np.int64],
    strings: NDArray[np.int64],
    address: Addresses,
    count: Counts,
    kind: Kinds,
) -> int:
    """Read access lines until the text ends (DONE), the room ends (FULL), or a line is none (OTHER) or bad (BROKEN).

    `fetch` says which instruction fetches are kept, and `pages` (int64[FETCHED]) which pages have had one.
    state[0] is the position of the first line not yet read, state[1] the accesses found, state[2] the lines read,
    state[3] the fetches left out and state[4] the lines that became accesses; `strings` is that of the module of this
    name. An access over the end of a block is one access to each of the blocks. The text must end with a newline; a
    carriage return before it is left out.
    """
    at, found, lines, fetches, sizes = state[0], state[1], state[2], state[3], state[4]
    end = len(text)
    room = len(address)
    code = DONE
    while at < end:
        first = text[at]
        if first == 73 and at + 2 < end and text[at + 1] == 32 and text[at + 2] == 32:  # "I  "
            what = 2
        elif first == 32 and at + 2 < end and text[at + 2] == 32:
            second = text[at + 1]
            what = 0 if second == 76 else 1 if second == 83 else 3 if second == 77 else -1  # L S M
        else:
            what = -1
        if what < 0:
            code = OTHER
            break
        start = at
        at += 3
        value = np.int64(0)
        digits = 0
        while True:
            c = text[at]
            if 48 <= c <= 57:
                digit = np.int64(c) - 48
            elif 97 <= c <= 102:
                digit = np.int64(c) - 87
            else:
                break
            value = (value << 4) | digit
            digits += 1
            at += 1
        size = np.int64(0)
        if text[at] == 44 and 1 <= digits <= 16:
            at += 1
            while 48 <= text[at] <= 57 and size <= _LARGEST:
                size = size * 10 + np.int64(text[at]) - 48
                at += 1
        if text[at] == 13:
            at += 1
        top = value >> 56
        if text[at] != 10 or size < 1 or size > _LARGEST or (top != 0 and top != -1) or (value + size - 1) >> 56 != top:
            at = start
            code = BROKEN
            break
        at += 1
        if (what != 2 or fetch != 0) and found + 1 + size // -mask + 1 > room:
            at = start
            code = FULL
            break
        lines += 1
        here = value
        if what == 2:
            if not fetched(strings, value):
                continue
            if fetch == 0 or (fetch == _FIRST and _had(pages, value >> 12)):
                fetches += 1
                continue
        elif what == 3:
            accessed(strings)
        else:
            here = first_byte(strings, value, size, what == 1)
            if here == value + size:
                continue
        sizes += 1
        last = (value + size - 1) & mask
        while True:
            address[found] = here
            count[found] = 2 if what == 3 else 1
            kind[found] = 1 if what == 3 else what
            found += 1
            if here & mask == last:
                break
            here = (here & mask) - mask  # -mask is the size of a block
    state[0], state[1], state[2], state[3], state[4] = at, found, lines, fetches, sizes
    return code
