"""Copies of page tables on the nodes of a host, and which of them a core walks (Mitosis, ASPLOS 2020).

Mitosis writes each entry of a table to a copy on every node, and has a processor walk that of its own. Copies differ in
their flags alone: hardware sets A and D in the copy that it walks, and software, which takes a flag for set where any
copy has it, clears it in all. So entries are kept once here, in the table they were written to, with the flags of all
copies together, and for each entry and node a pair of bits says which of these flags the node's copy lacks. The copies
are frames of their nodes, with addresses of their own: those are what walks refer to. The bits lie in the first copy.

A host whose tables have copies has a longer memory, which tells it from others: behind the words of its frames come a
row for each frame, `nodes + 1` words: 1 + the first copy << 16 | 1 + the owner, or 0, and the frame that each node
walks; then what software has done to copies, and a list of what it has written. Software gets there by `write_entry`,
hardware by `references`.
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import ACCESSED, DIRTY, ENTRIES, PAGE_SHIFT

__all__ = [
    "JOURNAL",
    "NO_COPY",
    "OWNER_BITS",
    "has_copies",
    "note_cleared",
    "note_read",
    "note_written",
    "place_of",
    "rows_of",
    "seen_in_copy",
    "set_in_copy",
    "words_for_copies",
    "wrote",
]

JOURNAL = 1024  # places that software has written to, until somebody looks
OWNER_BITS = 16
NO_COPY = 0
_OFFSET = (1 << PAGE_SHIFT) - 1
_HALF = np.int64((1 << 32) - 1)
_HEAD = 4  # the last words: where the list is and what was done, nodes, frames
_EVERY_NODE = 0x5555_5555  # the first bit of each pair


def words_for_copies(frames: int, nodes: int, owners: int) -> int:
    """Return how many words memory has behind those of its frames."""
    words = frames * (nodes + 1) + 2 * owners * nodes + 1 + JOURNAL + _HEAD
    return words + (words % ENTRIES == 0)


def rows_of(memory: np.ndarray, frames: int, nodes: int, owners: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Set up what lies behind memory's frames, and return it.

    Returns
    -------
    rows : int64[frames, nodes + 1]
    done : int64[2, owners, nodes]
        Entries that were written to copies on each node, and read from them.
    journal : int64[1 + JOURNAL]
        How many places have been written to, and their hpas as far as there is room.
    """
    assert len(memory) == frames * ENTRIES + words_for_copies(frames, nodes, owners), "memory has no room for copies"
    start = frames * ENTRIES
    done = start + frames * (nodes + 1)
    journal = done + 2 * owners * nodes
    memory[-_HEAD:] = journal, done, nodes, frames
    rows = memory[start:done].reshape(frames, nodes + 1)
    return rows, memory[done:journal].reshape(2, owners, nodes), memory[journal : journal + 1 + JOURNAL]


@leaf
def has_copies(memory):
    """Return whether tables of this host may have copies, which the length of its memory says."""
    return len(memory) & (ENTRIES - 1) != 0


@leaf
def _row(memory, hpa):
    """Return where the row of the frame at `hpa` begins."""
    return memory[len(memory) - 1] * ENTRIES + (hpa >> PAGE_SHIFT) * (memory[len(memory) - 2] + 1)


@leaf
def _bits_at(memory, row, hpa):
    """Return the hpa of the bits of an entry; there must be a copy."""
    return ((memory[row] >> OWNER_BITS) - 1) << PAGE_SHIFT | hpa & _OFFSET


@leaf
def _fold(marks):
    """Return the accessed and the dirty flag among some bits of an entry, as bits 0 and 1; EPT has them at 8 and 9."""
    return (marks >> 5 | marks >> 8) & 3


@leaf
def _pair(core, memory, row, hpa):
    """Return where the pair of bits of a core's copy begins: the nodes that walk the table itself have one together."""
    node = core.node
    if memory[row + 1 + node] == hpa >> PAGE_SHIFT:
        node = 0
        while memory[row + 1 + node] != hpa >> PAGE_SHIFT:
            node += 1
    return 2 * node


@routine
def place_of(core, memory, hpa):
    """Return where a core finds the entry at `hpa`: in the copy of its node, or there."""
    row = _row(memory, hpa)
    if memory[row] == NO_COPY:
        return hpa
    return memory[row + 1 + core.node] << PAGE_SHIFT | hpa & _OFFSET


@routine
def seen_in_copy(core, memory, hpa, entry, accessed, dirty, width):
    """Return an entry as a core sees it: without the flags that the copy of its node lacks."""
    row = _row(memory, hpa)
    if memory[row] >> OWNER_BITS == 0:
        return entry
    at = _bits_at(memory, row, hpa)
    lacks = (memory[at >> 3] >> (0 if width == 9 else (at & 4) << 3)) >> _pair(core, memory, row, hpa)
    return entry & ~((accessed if lacks & 1 else 0) | (dirty if lacks & 2 else 0))


@routine
def set_in_copy(core, memory, hpa, entry, marks, width):
    """Set flags in the copy of a core's node alone; return the entry as that has it then.

    `entry` is that at `hpa`, where the flags are not set yet.
    """
    row = _row(memory, hpa)
    if memory[row] >> OWNER_BITS == 0:
        return entry | marks
    at = _bits_at(memory, row, hpa)
    shift = 0 if width == 9 else (at & 4) << 3
    bits = memory[at >> 3] >> shift & _HALF
    bits |= _fold(marks & ~entry) * _EVERY_NODE  # which no copy has had
    pair = _pair(core, memory, row, hpa)
    bits &= ~(_fold(marks) << pair)
    memory[at >> 3] = memory[at >> 3] & ~(_HALF << shift) | (bits & _HALF) << shift
    lacks = (bits >> pair & 3) << (5 if marks & (ACCESSED | DIRTY) else 8)
    return (entry | marks) & ~lacks


@leaf
def _count(memory, row, hpa, what, entries):
    """Count entries of the copies of a table; `what` is 0 where they are written, 1 where they are read."""
    nodes = memory[len(memory) - 2]
    done = memory[len(memory) - 3]
    journal = memory[len(memory) - 4]
    owner = (memory[row] & ((1 << OWNER_BITS) - 1)) - 1
    first = done + what * ((journal - done) >> 1) + owner * nodes
    for node in range(nodes):
        if memory[row + 1 + node] != hpa >> PAGE_SHIFT:
            memory[first + node] += entries


@leaf
def _list(memory, hpa):
    """Put a place on the list of those written to."""
    journal = memory[len(memory) - 4]
    memory[journal] += 1
    if memory[journal] <= JOURNAL:
        memory[journal + memory[journal]] = hpa


@routine
def note_written(memory, hpa, width):
    """Note that software has written the entry at `hpa`, and so to all copies, which have the same flags now."""
    row = _row(memory, hpa)
    if memory[row] == NO_COPY:
        return
    if memory[row] >> OWNER_BITS:
        at = _bits_at(memory, row, hpa)
        memory[at >> 3] &= np.int64(0) if width == 9 else ~(_HALF << ((at & 4) << 3))
    _count(memory, row, hpa, 0, 1)
    _list(memory, hpa)


@routine
def note_cleared(memory, hpa):
    """Note that software has cleared the table at `hpa`."""
    row = _row(memory, hpa)
    if memory[row] == NO_COPY:
        return
    if memory[row] >> OWNER_BITS:
        first = _bits_at(memory, row, hpa) >> 3
        for word in range(first, first + ENTRIES):
            memory[word] = 0
    _count(memory, row, hpa, 0, ENTRIES)
    _list(memory, hpa)


@routine
def _note_read(memory, hpa):
    row = _row(memory, hpa)
    if memory[row] != NO_COPY:
        _count(memory, row, hpa, 1, 1)


@leaf
def note_read(memory, hpa):
    """Note that software reads the flags of the entry at `hpa`, for which it looks at all copies."""
    if has_copies(memory):
        _note_read(memory, hpa)


@kernel
def _note_each(memory, places):
    for number in range(len(places)):
        note_written(memory, places[number], 9)


def wrote(memory: np.ndarray, places: np.ndarray) -> None:
    """Note that software has written words, int64[n] hpas, of tables without `write_word`."""
    if len(memory) % ENTRIES:
        _note_each(memory, places)
