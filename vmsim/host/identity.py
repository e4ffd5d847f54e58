"""What pages hold, as far as one can be told from another: zeros, a page of an image, or something of their own.

Words of data pages are not simulated. What a page holds follows from what happened to it: a program's page holds zeros,
or what its image has at its address (`scenario.content`), from the time that its kernel maps it until it is written to,
which the dirty flag of the entry tells that maps it. From then on no other page holds the same. Page tables are never
equal to anything: their flags change under the walks of the processor, and Linux's checksum with them.

To the host a frame that no entry maps holds what it held last, which is its own, unless the guest's kernel has never
handed it out: then zeros. So does a page that several entries map, after a fork.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Words
from vmsim.frames.records import State
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import DIRTY, FRAME, LARGE, PAGE_SHIFT, PRESENT
from vmsim.machine.memory import read_entry, width_of
from vmsim.scenario.content import Content
from vmsim.tables.backing import locate_page

__all__ = ["CHANGED", "CONTENT", "OWN", "UNKNOWN", "ZERO", "PageIdentity", "identify", "mixed"]

ZERO = 0  # the identity of a page of zeros; those of an image are above
OWN = -1  # what no other page has; it is the same as when it was last looked at
CHANGED = -2  # what no other page has, and it had not when it was last looked at
UNKNOWN = -3  # nobody can look now: the table that maps the page is elsewhere

_WHOLE = 1 << 32
_IDENTITY = (1 << 61) - 1
_WRITTEN = 1 << 60  # tells what is drawn for written pages from what is drawn for others

# Whose pages are told apart, and how.
CONTENT = np.dtype(
    (
        np.record,
        [
            ("image", "i8"),
            ("image_share", "i8"),  # of 2**32
            ("unique_share", "i8"),
            ("volatile", "i8"),
            ("levels", "i8"),  # of the tables that map programs' pages
            ("owner", "i8"),
        ],
    )
)


@leaf
def mixed(value):  # type: ignore[no-untyped-def]
    """Return a number in [0, 2**61) that looks drawn: the finaliser of splitmix64 (G. Steele et al., OOPSLA 2014)."""
    word = np.uint64(value) + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    word ^= word >> np.uint64(31)
    return np.int64(word >> np.uint64(3))


@routine
def _page_number(frames, levels, place):  # type: ignore[no-untyped-def]
    """Return which page the entry at `place` maps, by the entries that lead to its table; -1: that is not known."""
    width = width_of(levels)
    size = 4 if width == 10 else 8
    number = np.int64(0)
    for level in range(levels):
        number |= ((place & 0xFFF) // size) << (width * level)
        if level + 1 < levels:
            place = np.int64(frames[place >> PAGE_SHIFT].rmap)
            if place == 0:
                return np.int64(-1)
    return number


@routine
def _first_identity(content, number):  # type: ignore[no-untyped-def]
    """Return what a program's page holds before it is written to."""
    drawn = mixed(number ^ content.image) & (_WHOLE - 1)
    if drawn < content.unique_share:
        return np.int64(OWN)
    if content.image == 0 or drawn - content.unique_share >= content.image_share:
        return np.int64(ZERO)
    return 1 + mixed(mixed(number) ^ content.image) % _IDENTITY


@routine
def _identity(memory, backing, frames, content, number):  # type: ignore[no-untyped-def]
    """Return the identity of what a frame holds, by the entry that maps it."""
    frame = frames[number]
    if frame.state == State.TABLE:
        return np.int64(CHANGED)
    if frame.state == State.FREE:
        never = frame.rmap == 0 and frame.next == 0 and frame.prev == 0 and frame.block == 0
        return np.int64(ZERO) if never else np.int64(OWN)
    place = np.int64(frame.rmap)
    if place <= 0:
        return np.int64(OWN)
    hpa = place
    if len(backing):
        hpa, backed, _ = locate_page(backing, place)
        if backed == 0:
            return np.int64(UNKNOWN)
    entry = read_entry(memory, hpa, width_of(content.levels))
    if entry & PRESENT == 0 or entry & LARGE or (entry & FRAME) >> PAGE_SHIFT != number:
        return np.int64(OWN)
    page = _page_number(frames, content.levels, place)
    if page < 0:
        return np.int64(OWN)
    if entry & DIRTY:
        return np.int64(CHANGED) if mixed(page ^ _WRITTEN) & (_WHOLE - 1) < content.volatile else np.int64(OWN)
    return _first_identity(content, page)


@kernel
def identify(memory, backing, frames, contents, number):  # type: ignore[no-untyped-def]
    """Return the identity of what a page holds: ZERO, one of an image above it, OWN, CHANGED or UNKNOWN.

    Parameters
    ----------
    memory, backing : int64[:]
        Host-physical memory, and where the guest's lies; empty for a program on the host itself.
    frames : FRAME_RECORD[:]
        Of the kernel that maps pages.
    contents : CONTENT[1]
        Whose pages.
    number : int
        The frame.
    """
    return _identity(memory, backing, frames, contents[0], number)


@kernel
def identify_each(memory, backing, frames, contents, numbers, found):  # type: ignore[no-untyped-def]
    """Do the same to some pages, `numbers`, int64[n], and fill `found`, int64[n]."""
    for at in range(len(numbers)):
        found[at] = _identity(memory, backing, frames, contents[0], numbers[at])


class PageIdentity:
    """What the pages of one VM, or of a program on the host itself, hold.

    Parameters
    ----------
    memory, backing, frames
        As of `identify`.
    levels, owner : int
        Of the tables of the kernel that maps pages, and whose they are.
    content : Content
        What pages hold before they are written to.
    late : callable
        Returns whether dirty flags come late to a guest's entries: a shadow that brings them up to date when asked.

    Attributes
    ----------
    record : CONTENT[1]
        What compiled code needs of it.
    """

    def __init__(
        self,
        memory: Words,
        backing: Words,
        frames: NDArray[Any],
        *,
        levels: int,
        owner: int,
        content: Content,
        late: Callable[[], bool],
    ) -> None:
        self.memory = memory
        self.backing = backing
        self.frames = frames
        self.late = late
        self.record = np.zeros(1, CONTENT)
        digest = sha256(content.image.encode()).digest()
        self.record["image"] = int.from_bytes(digest[:7], "little") if content.image else 0
        self.record["image_share"] = round(content.image_share * _WHOLE)
        self.record["unique_share"] = round(content.unique_share * _WHOLE)
        self.record["volatile"] = round(content.volatile * _WHOLE)
        self.record["levels"] = levels
        self.record["owner"] = owner

    def of(self, number: int) -> int:
        """Return the identity of what one page holds."""
        return int(identify(self.memory, self.backing, self.frames, self.record, number))

    def of_each(self, numbers: Words) -> Words:
        """Return the identities of what some pages hold, int64[n]."""
        found = np.empty(len(numbers), np.int64)
        identify_each(self.memory, self.backing, self.frames, self.record, numbers, found)
        return found
