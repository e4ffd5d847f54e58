"""Where guest memory lies: one word of each guest frame, the host's one truth, which software reads in place of tables.

A word is 0 where a frame never had a host frame. Where it has one, the word has PRESENT, the address of the host frame,
and the level at which the host maps it: 1, 2 or 3 for a page of 4K, 2M or 1G (KVM's `kvm_memory_slot` and the page
tables of its process, virt/kvm/kvm_main.c, `hva_to_pfn`, which also finds the size of the mapping). A frame that the
host has taken away says where its contents are: SWAPPED, or nowhere, BALLOONED. A SHARED one has the address of a frame
that others read too; it is not PRESENT, so that whoever is about to write to it asks the host for a page of its own
first. A CLEAN one is SHARED besides, but its frame is its own: the swap device has the same, until it is written to.
A HINTED one has a frame of its own that nothing maps until its next access has been noticed: a NUMA hinting fault.
A SWAPPED one that is CACHED besides has the address of a frame of the host's: it is in the swap cache, and holds zeros.
What tables map is another matter: an entry can be absent while its page is PRESENT, and the next violation writes it
again. Memory of programs that run on the host itself is not looked up: their array is empty, and every address is the
host's own.
"""

from __future__ import annotations

import numpy as np

from vmsim.frames.buddy import allocate
from vmsim.frames.records import NO_FRAME, State
from vmsim.jit import kernel, leaf
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT
from vmsim.machine.memory import entry_at, read_entry, width_of, zeroed

__all__ = [
    "BALLOONED",
    "CACHED",
    "CLEAN",
    "CLEAN_PAGE",
    "HINTED",
    "HINTED_PAGE",
    "IDENTITY",
    "OWNED",
    "SHARED",
    "SMALL_PAGE",
    "SWAPPED",
    "UNBACKED",
    "all_small",
    "break_up",
    "break_up_each",
    "cached_word",
    "clean_backing",
    "count_leaves",
    "elsewhere",
    "fill_backing",
    "find_takeable",
    "hint_each",
    "host_address",
    "lacks",
    "level_of",
    "locate",
    "locate_page",
    "make_backing",
    "next_lacking",
    "page_of",
    "populate_backing",
    "set_backing",
    "share_backing",
    "shared",
    "shared_frame",
    "shared_frames",
    "take_backing",
]

IDENTITY = np.empty(0, np.int64)  # of the host's own memory
UNBACKED = -1
SWAPPED = 1 << 1
BALLOONED = 1 << 2
SHARED = 1 << 3
CLEAN = 1 << 7  # besides SHARED
CACHED = 1 << 8  # besides SWAPPED
HINTED = 1 << 9
OWNED = PRESENT | CLEAN | HINTED  # one of them: it has a frame of its own
_LEVEL_SHIFT = 4
SMALL_PAGE = PRESENT | 1 << _LEVEL_SHIFT  # the word of a page of 4K, but for its frame
CLEAN_PAGE = SHARED | CLEAN | 1 << _LEVEL_SHIFT  # the same of one that the swap device has too
HINTED_PAGE = HINTED | 1 << _LEVEL_SHIFT  # and of one whose next access is to be noticed
_OFFSET = (1 << PAGE_SHIFT) - 1


def make_backing(frames: int) -> np.ndarray:
    """Return where the memory of a new VM of so many frames lies, int64[frames]: nowhere yet."""
    return zeroed(8 * max(frames, 1)).view(np.int64)[:frames]


@kernel
def host_address(backing, gpa):
    """Return the hpa of `gpa`, or UNBACKED; where `backing` is empty the two are the same."""
    if len(backing) == 0:
        return gpa
    gfn = gpa >> PAGE_SHIFT
    if gfn >= len(backing) or gfn < 0:
        return np.int64(UNBACKED)
    word = backing[gfn]
    if word & PRESENT == 0:
        return np.int64(UNBACKED)
    return (word & FRAME) | (gpa & _OFFSET)


@leaf
def locate(backing, gpa):
    """Return the hpa behind `gpa` and the level at which the host maps it; level 0 where it does not."""
    gfn = gpa >> PAGE_SHIFT
    if gfn >= len(backing) or gfn < 0 or backing[gfn] & PRESENT == 0:
        return np.int64(0), np.int64(0)
    word = backing[gfn]
    return (word & FRAME) | (gpa & _OFFSET), (word >> _LEVEL_SHIFT) & 7


@leaf
def shared(backing, gfn):
    """Return whether a guest frame may only be read: others read its frame too, or the swap device has the same."""
    return backing[gfn] & SHARED != 0


@leaf
def locate_page(backing, gpa):
    """Return the hpa behind `gpa`, the level at which the host maps it (0: not), and whether it may only be read."""
    gfn = gpa >> PAGE_SHIFT
    if gfn >= len(backing) or gfn < 0 or backing[gfn] & (PRESENT | SHARED) == 0:
        return np.int64(0), np.int64(0), False
    word = backing[gfn]
    return (word & FRAME) | (gpa & _OFFSET), (word >> _LEVEL_SHIFT) & 7, word & SHARED != 0


def level_of(words: np.ndarray) -> np.ndarray:
    """Return the level at which the host maps the pages that some words tell of, int64 of the same shape."""
    return (words >> _LEVEL_SHIFT) & 7


@leaf
def lacks(backing, gfn):
    """Return whether a guest frame has no host frame of its own."""
    return backing[gfn] & PRESENT == 0


@kernel
def next_lacking(backing, gfn, limit):
    """Return the first of the guest frames [gfn, limit) that has no host frame of its own; `limit`: all have."""
    while gfn < limit and backing[gfn] & PRESENT:
        gfn += 1
    return gfn


@kernel
def count_leaves(backing, first, count):
    """Return how many pages the host has for guest frames [first, first + count), a large one counted once."""
    small, large, huge = 0, 0, 0
    for gfn in range(first, min(first + count, len(backing))):
        word = backing[gfn]
        if word & (PRESENT | SHARED):
            level = (word >> _LEVEL_SHIFT) & 7
            if level == 1:
                small += 1
            elif level == 2:
                large += 1
            else:
                huge += 1
    return small + (large + 511) // 512 + (huge + (1 << 18) - 1) // (1 << 18)


@leaf
def elsewhere(backing, gfn):
    """Return whether the host has taken the page of a guest frame, or shares it: backing it again may have to wait."""
    return len(backing) > 0 and backing[gfn] != 0 and backing[gfn] & PRESENT == 0


@kernel
def set_backing(backing, frames, gfn, pfn, order):
    """Note that the 2**order guest frames from `gfn` on lie at the host frames from `pfn` on, mapped by one entry.

    The records of the host's frames say so too: they are its reverse map.
    """
    level = order // 9 + 1
    for number in range(min(1 << order, len(backing) - gfn)):
        backing[gfn + number] = (pfn + number) << PAGE_SHIFT | level << _LEVEL_SHIFT | PRESENT
        frames[pfn + number].rmap = gfn + number + 1


@kernel
def populate_backing(zones, frames, owner, backing, gfn, limit, order):
    """Have the guest frames [gfn, limit) lie in newly allocated pages of 2**order frames; return where it stopped."""
    while gfn < limit:
        pfn = allocate(zones, frames, np.int64(order), np.int64(State.GUEST), owner)
        if pfn == NO_FRAME:
            break
        set_backing(backing, frames, gfn, pfn, order)
        gfn += 1 << order
    return gfn


@kernel
def find_takeable(backing, pins, gfns, found):
    """List those of some guest frames, int64[n], that have a host frame of their own which no device works on.

    Parameters
    ----------
    pins : int32[frames]
        How many requests of devices pin each host frame.
    found : int64[n]
        Filled.

    Returns
    -------
    int
        How many there are.
    """
    count = 0
    for at in range(len(gfns)):
        word = backing[gfns[at]]
        if word & OWNED and pins[(word & FRAME) >> PAGE_SHIFT] == 0:
            found[count] = gfns[at]
            count += 1
    return count


@kernel
def take_backing(backing, frames, gfns, word, pfns):
    """Take guest frames, int64[n], from their host frames: their word is `word` from now on, and no entry maps them.

    Those are filled in `pfns`, int64[n].
    """
    for at in range(len(gfns)):
        pfns[at] = (backing[gfns[at]] & FRAME) >> PAGE_SHIFT
        backing[gfns[at]] = word
        frames[pfns[at]].rmap = 0


@kernel
def all_small(backing, gfns):
    """Return whether all of some guest frames, int64[n], lie in small pages of their own."""
    for at in range(len(gfns)):
        kind = backing[gfns[at]] & ~FRAME
        if kind != SMALL_PAGE and kind != CLEAN_PAGE:
            return False
    return True


def share_backing(backing: np.ndarray, gfn: int, pfn: int) -> None:
    """Note that a guest frame lies in a frame that others read too."""
    backing[gfn] = pfn << PAGE_SHIFT | 1 << _LEVEL_SHIFT | SHARED


def cached_word(pfn: int) -> int:
    """Return the word of a page that is swapped out and lies in a frame of the swap cache too."""
    return pfn << PAGE_SHIFT | CACHED | SWAPPED


def clean_backing(backing: np.ndarray, gfn: int, *, clean: bool) -> None:
    """Note that the swap device has what a guest frame's own, small page holds, or has it no more."""
    backing[gfn] = backing[gfn] & FRAME | (CLEAN_PAGE if clean else SMALL_PAGE)


def hint_each(backing: np.ndarray, gfns: np.ndarray, *, hinted: bool) -> None:
    """Have the next access to some guest frames that have a frame of their own be noticed, int64[n], or not."""
    before, after = (PRESENT, HINTED) if hinted else (HINTED, PRESENT)
    backing[gfns] = backing[gfns] & ~before | after


def shared_frame(backing: np.ndarray, gfn: int) -> int | None:
    """Return the frame of a guest frame that may only be read, for it is shared or clean; or None."""
    word = int(backing[gfn])
    return (word & FRAME) >> PAGE_SHIFT if word & SHARED else None


def shared_frames(backing: np.ndarray) -> set[int]:
    """Return the frames that the guest may only read."""
    words = backing[backing & SHARED != 0]
    return set(((words & FRAME) >> PAGE_SHIFT).tolist())


def page_of(backing: np.ndarray, gfn: int, most: int) -> tuple[int, int] | None:
    """Return (pfn, order) of the page that a guest frame lies in, of at most 2**`most` frames, or None."""
    word = int(backing[gfn])
    if not word & (PRESENT | HINTED):
        return None
    order = min(9 * ((word >> _LEVEL_SHIFT & 7) - 1), most)
    return (word & FRAME) >> PAGE_SHIFT & -(1 << order), order


@kernel
def break_up(backing, gfn):
    """Have the host map the large page of a guest frame, if it is in one, by small ones from now on."""
    level = (backing[gfn] >> _LEVEL_SHIFT) & 7
    if level < 2:
        return
    size = 1 << (9 * (level - 1))
    first = gfn & ~(size - 1)
    for each in range(first, min(first + size, len(backing))):
        if backing[each] & (PRESENT | HINTED):
            backing[each] = (backing[each] & (FRAME | PRESENT | HINTED)) | 1 << _LEVEL_SHIFT


@kernel
def break_up_each(backing, gfns):
    """Do the same to the large pages of some guest frames, int64[n]."""
    for at in range(len(gfns)):
        break_up(backing, gfns[at])


@kernel
def fill_backing(memory, backing, frames, root, levels):
    """Note all that nested tables map."""
    width = width_of(levels)
    gfn = 0
    while gfn < len(backing):
        level = levels
        table = root
        while True:
            place = entry_at(table, gfn << PAGE_SHIFT, level, width)
            entry = read_entry(memory, place, width)
            if level == 1 or entry == 0 or entry & LARGE:
                break
            table = entry & FRAME
            level -= 1
        if level > 1:
            order = width * (level - 1)
            if entry:
                set_backing(backing, frames, gfn, (entry & FRAME) >> PAGE_SHIFT & -(1 << order), order)
            gfn += 1 << order
            continue
        for each in range(gfn, min((gfn | ((1 << width) - 1)) + 1, len(backing))):  # the rest of the table
            entry = read_entry(memory, place, width)
            if entry:
                backing[each] = (entry & FRAME) | SMALL_PAGE
                frames[(entry & FRAME) >> PAGE_SHIFT].rmap = each + 1
            place += 1 << (PAGE_SHIFT - width)
        gfn = (gfn | ((1 << width) - 1)) + 1
