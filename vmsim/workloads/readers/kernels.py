"""The loops of the readers: accesses into runs, and valgrind lackey's text into accesses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import kernel
from vmsim.workloads.readers.strings import accessed, fetched, first_byte
from vmsim.workloads.stream import Addresses, Counts, Kinds

__all__ = ["BROKEN", "DONE", "FULL", "OTHER", "blocks_of_ranks", "coalesce", "lackey", "rank_blocks"]

_MOST = (1 << 31) - 1  # a run's count is an int32


@kernel
def coalesce(
    address: Addresses,
    count: Counts,
    kind: Kinds,
    mask: np.int64,
    joins: np.int64,
    filled: np.int64,
    out_address: Addresses,
    out_count: Counts,
    out_kind: Kinds,
) -> np.int64:
    """Append accesses to `filled` runs and return how many there are now.

    An access joins the run before it if block and kind are the same, but never a run below number `joins`: an event
    stands between.
    """
    for i in range(len(address)):
        block = address[i] & mask
        last = filled - 1
        if (
            last >= joins
            and out_address[last] == block
            and out_kind[last] == kind[i]
            and np.int64(out_count[last]) + count[i] <= _MOST
        ):
            out_count[last] += count[i]
        else:
            out_address[filled] = block
            out_count[filled] = count[i]
            out_kind[filled] = kind[i]
            filled += 1
    return filled


DONE, FULL, OTHER, BROKEN = 0, 1, 2, 3
_LARGEST = 4096  # bytes of one access; lackey's own limit is 512


@kernel
def lackey(
    text: NDArray[np.uint8],
    fetch: bool,
    mask: np.int64,
    state: NDArray[np.int64],
    strings: NDArray[np.int64],
    address: Addresses,
    count: Counts,
    kind: Kinds,
) -> int:
    """Read access lines until the text ends (DONE), the room ends (FULL), or a line is none (OTHER) or bad (BROKEN).

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
        if (what != 2 or fetch) and found + 1 + size // -mask + 1 > room:
            at = start
            code = FULL
            break
        lines += 1
        here = value
        if what == 2:
            if not fetched(strings, value):
                continue
            if not fetch:
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


@kernel
def rank_blocks(blocks: Addresses, recent: Addresses, rank: Kinds, novel: Addresses) -> int:
    """Set rank[i] to the recency rank of blocks[i], or len(recent) where it is not among the recent.

    Such blocks are put in `novel`; their number is returned.
    """
    depth = len(recent)
    known = 0
    found = 0
    for i in range(len(blocks)):
        block = blocks[i]
        newer = block
        at = 0
        while at < known:
            here = recent[at]
            recent[at] = newer
            if here == block:
                break
            newer = here
            at += 1
        if at == known:
            if known < depth:
                recent[known] = newer
                known += 1
            at = depth
            novel[found] = block
            found += 1
        rank[i] = at
    return found


@kernel
def blocks_of_ranks(rank: Kinds, novel: Addresses, shift: np.int64, recent: Addresses, address: Addresses) -> bool:
    """Undo `rank_blocks`; return whether every rank was that of a block already seen.

    `recent` has one place more than blocks are remembered: what falls off the end is written there.
    """
    depth = len(recent) - 1
    known = 0
    taken = 0
    for i in range(len(rank)):
        at = np.int64(rank[i])
        if at == depth:
            block = novel[taken] << shift
            taken += 1
            at = np.int64(known)
            if known < depth:
                known += 1
        elif at < known:
            block = recent[at]
        else:
            return False
        for place in range(at, 0, -1):
            recent[place] = recent[place - 1]
        recent[0] = block
        address[i] = block
    return True
