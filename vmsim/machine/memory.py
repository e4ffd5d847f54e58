"""Physical memory: one array of 64-bit words, indexed by hpa / 8, that the operating system backs as it is touched.

Only page tables have contents here, so a host of any size costs what its tables cost. Table edits are made by the
guest's and the monitor's kernels through the functions below; walkers (walker.py) read the same words.
"""

from __future__ import annotations

import mmap

import numpy as np

from vmsim.jit import kernel, leaf
from vmsim.machine.copies import has_copies, note_cleared, note_written, words_for_copies
from vmsim.machine.formats import ENTRIES, FRAME, LARGE, PAGE_SHIFT, TWO_LEVEL

__all__ = [
    "ABSENT",
    "clear_frame",
    "entry_at",
    "find_entry",
    "index_of",
    "physical_memory",
    "read_entry",
    "read_word",
    "set_entry",
    "width_of",
    "words_by_frame",
    "write_entry",
    "write_word",
    "zeroed",
]

ABSENT = -1
_HALF = np.int64((1 << 32) - 1)

_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


def zeroed(size: int) -> np.ndarray:
    """Return `size` zeroed bytes, uint8[size], that the operating system gives memory for as they are touched.

    Raises
    ------
    MemoryError
        The operating system refuses to reserve the addresses.
    """
    try:
        area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    except OSError as error:
        raise MemoryError(f"cannot reserve {size} bytes of address space: {error}") from error
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        area.madvise(mmap.MADV_NOHUGEPAGE)  # what is touched lies scattered; 2 MiB for each would defeat the purpose
    return np.frombuffer(area, np.uint8)


def physical_memory(frames: int, nodes: int = 0, owners: int = 0) -> np.ndarray:
    """Return zeroed memory of `frames` 4 KiB frames, shape (frames × 512,), dtype int64; untouched frames cost nothing.

    It is longer where the tables of so many `owners` may have copies on `nodes` (`copies`).

    Raises
    ------
    MemoryError
        As of `zeroed`.
    """
    more = words_for_copies(frames, nodes, owners) if owners else 0
    return zeroed((frames << PAGE_SHIFT) + 8 * more).view(np.int64)


def words_by_frame(memory: np.ndarray) -> np.ndarray:
    """Return the words of each frame, int64[frames, 512], without what lies behind them (`copies`)."""
    frames = int(memory[-1]) if len(memory) % ENTRIES else len(memory) // ENTRIES
    return memory[: frames * ENTRIES].reshape(frames, ENTRIES)


@leaf
def index_of(address, level, width=9):
    """Return which entry of a table that translates `width` bits translates `address` at `level`."""
    return (address >> (PAGE_SHIFT - width + width * level)) & ((1 << width) - 1)


@leaf
def width_of(levels):
    """Return how many bits of an address each table of so many levels translates: 9, or 10 in 32-bit paging."""
    return 10 if levels == TWO_LEVEL else 9


@leaf
def entry_at(table, address, level, width=9):
    """Return the hpa of the entry that translates `address` in the table of `level` at hpa `table`.

    A table of any format fills a frame, so an entry of one that translates `width` bits has 4096 >> width bytes.
    """
    return table + (index_of(address, level, width) << (PAGE_SHIFT - width))


@leaf
def read_word(memory, hpa):
    """Return the word at `hpa`."""
    return memory[np.uint64(hpa >> 3)]


@leaf
def write_word(memory, hpa, word):
    """Store `word` at `hpa`, and in all copies of the table."""
    memory[np.uint64(hpa >> 3)] = word
    if has_copies(memory):
        note_written(memory, hpa, 9)


@leaf
def read_entry(memory, hpa, width):
    """Return the entry at `hpa` of a table that translates `width` bits: a word, or one of its halves."""
    word = memory[np.uint64(hpa >> 3)]
    return word if width == 9 else (word >> ((hpa & 4) << 3)) & _HALF


@leaf
def set_entry(memory, hpa, entry, width):
    """Store `entry` at `hpa` in a table that translates `width` bits, and nowhere else; the rest of its word stays."""
    if width != 9:
        shift = (hpa & 4) << 3
        entry = (memory[np.uint64(hpa >> 3)] & ~(_HALF << shift)) | (entry & _HALF) << shift
    memory[np.uint64(hpa >> 3)] = entry


@leaf
def write_entry(memory, hpa, entry, width):
    """Store `entry` at `hpa` as software does: in all copies of the table."""
    set_entry(memory, hpa, entry, width)
    if has_copies(memory):
        note_written(memory, hpa, width)


@kernel
def clear_frame(memory, hpa):
    """Zero the frame at `hpa`, as a kernel does to a page it makes a table of."""
    first = hpa >> 3
    for word in range(ENTRIES):
        memory[first + word] = 0
    if has_copies(memory):
        note_cleared(memory, hpa)


@kernel
def find_entry(memory, root, levels, leaf_level, address):
    """Descend to where `address` is, or would be, mapped.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    root : int
        hpa of the root table, of entries of 8 bytes. The tables are found by hpa: this serves nested and native tables;
        a guest's own, whose entries hold guest-physical addresses, are the guest kernel's to descend.
    levels, leaf_level : int
        Level of the root, and of the entry wanted (1, 2 or 3).
    address : int
        The gpa (nested tables) or gva (native) to look up.

    Returns
    -------
    (hpa, level) : tuple of int
        The entry's place and its level. A level above `leaf_level` says that the entry there is absent (tables below
        it are missing) or maps a large page.
    """
    level = levels
    table = root
    while True:
        hpa = entry_at(table, address, level)
        if level == leaf_level:
            return hpa, level
        entry = read_word(memory, hpa)
        if entry == 0 or entry & LARGE:
            return hpa, level
        table = entry & FRAME
        level -= 1
