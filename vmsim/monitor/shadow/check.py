"""Whether a shadow is what it must be, entry by entry: for `--check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Words
from vmsim.frames.records import State
from vmsim.machine.formats import DIRTY, FRAME, LARGE, PAGE_SHIFT, PRESENT, SWITCH, TWO_LEVEL, USER, WRITE
from vmsim.machine.memory import width_of, words_by_frame
from vmsim.monitor.shadow.records import Hide, ShadowTables
from vmsim.tables.backing import SHARED, host_address, shared_frames

__all__ = ["problems_of"]

_REACHES = {Hide.WRITE_PROTECT: WRITE, Hide.USER_BIT: USER, Hide.PRESENT_BIT: PRESENT}  # what a hidden table lacks


class Shadow(Protocol):
    """What is looked at of a shadow monitor; its records are those of `monitor.shadow.records`."""

    memory: Words
    backing: Words
    state: NDArray[Any]
    cpus: NDArray[Any]
    tables: ShadowTables
    pages: NDArray[Any]
    gfns: NDArray[Any]
    registers: NDArray[Any]
    owner: int
    loading: set[int]

    @property
    def frames_held(self) -> int:
        """Host frames that are shadow pages, or at hand to become some."""
        ...


def problems_of(shadow: Shadow, frames: NDArray[Any]) -> Iterator[str]:
    """Yield what is wrong with a shadow: whose its frames are, where its entries lead, that they are guest∘host.

    An entry gives no right that the guest's does not, none to write to what is clean in the guest's (where a store is
    to set D), and none to reach a table whose accesses are to trap.

    Parameters
    ----------
    shadow : Shadow
        A VM's monitor.
    frames : FRAME_RECORD[:]
        The host's.
    """
    memory, pages = shadow.memory, shadow.pages
    used = np.flatnonzero(pages["level"] > 0)
    by_frame = dict(zip(pages["hpa"][used].tolist(), used.tolist(), strict=True))
    stocks = zip(shadow.tables.stock, shadow.cpus["stock"], strict=True)
    stock = np.concatenate([frames[:count] for frames, count in stocks])
    pointers = shadow.cpus["pae_root"].tolist()
    tables = np.array([*by_frame, *(each for each in pointers if each >= 0)], np.int64) >> PAGE_SHIFT
    held = [(tables, State.TABLE), (stock, State.POOL)]
    if any(
        (frames["owner"][pfns] != shadow.owner).any() or (frames["state"][pfns] != state).any() for pfns, state in held
    ):
        yield "isolation: a shadow page is not its own"
    if len({*tables.tolist(), *stock.tolist()}) != shadow.frames_held:
        yield "conservation: a frame is two shadow pages"
    roots = Counter(int(root) for root in shadow.cpus["roots"].ravel() if root >= 0)
    if pages["roots"].sum() != roots.total() or any(pages["roots"][page] != count for page, count in roots.items()):
        yield "coherence: a shadow page is the root of more or fewer vCPUs than it counts"
    for cpu, place in enumerate(pointers):
        if place >= 0 and cpu not in shadow.loading:
            yield from _of_pointers(shadow, cpu, by_frame, memory[place >> 3 : (place >> 3) + 4].tolist())
    entries = _Entries(shadow, used)
    yield from _reach(shadow, frames, entries)
    yield from _rights(shadow, entries)
    yield from _lead(shadow, entries)


def _guarded(shadow: Shadow) -> dict[int, int]:
    """Return the guest's tables whose accesses are to trap (shadowed and in step): their gfns, by host frame."""
    found = {}
    for gfn in np.flatnonzero(shadow.gfns["tables"]).tolist():
        page = int(shadow.gfns["tables"][gfn])
        while page and shadow.pages["unsync"][page - 1]:
            page = int(shadow.pages["next"][page - 1])
        if page:
            found[int(host_address(shadow.backing, gfn << PAGE_SHIFT)) >> PAGE_SHIFT] = gfn
    return found


def _of_pointers(shadow: Shadow, cpu: int, by_frame: dict[int, int], entries: list[int]) -> Iterator[str]:
    """Yield what is wrong with the PDPTEs that a vCPU's CR3 leads to, which the processor has in registers."""
    levels, pdptes = int(shadow.state["levels"][0]), shadow.cpus["pdpte"][cpu].tolist()
    if entries != shadow.registers["pdpte"][cpu].tolist():
        yield "coherence: the processor's PDPTEs are not those of the shadow"
    for number, entry in enumerate(entries):
        page = by_frame.get(entry & FRAME)
        if not entry or entry & SWITCH:
            continue
        if page is None:
            yield "isolation: a PDPTE of the shadow leads to a table that is no shadow page"
        elif page != shadow.cpus["roots"][cpu][number]:
            yield "coherence: a PDPTE of the shadow leads to another page than CR3 was loaded for"
        elif levels == TWO_LEVEL and (*shadow.pages[page][["level", "quadrant"]],) != (2, number):
            yield "composition: a PDPTE of the shadow leads to another quadrant"
        elif levels == 3 and shadow.pages[page]["gfn"] != (pdptes[number] & FRAME) >> PAGE_SHIFT:
            yield "composition: a PDPTE of the shadow leads to another table's"


class _Entries:
    """The entries in use of all shadow pages, a column of each.

    Attributes
    ----------
    page, index, value, level : int64[n]
        The page, which of its entries, what that holds, and the page's level.
    leaf, switched : bool[n]
        Whether it maps a page; whether the table it leads to is the guest's own.
    target, size : int64[n]
        The first host frame that it leads to, and how many frames it maps (1 of a table).
    gfn, origin : int64[n]
        As of the page (`records.PAGE`).
    in_step : bool[n]
        Whether the page is: else its entries may lag behind the guest's.
    guest : int64[n]
        The guest's entry that it stands for.
    """

    def __init__(self, shadow: Shadow, used: Words) -> None:
        pages = shadow.pages
        words = words_by_frame(shadow.memory)[pages["hpa"][used] >> PAGE_SHIFT]
        row, self.index = np.nonzero(words)
        self.page, self.value = used[row], words[row, self.index]
        self.level = pages["level"][self.page].astype(np.int64)
        self.leaf = (self.level == 1) | (self.value & LARGE != 0)
        self.switched = self.value & SWITCH != 0
        self.target = (self.value & FRAME) >> PAGE_SHIFT
        self.size = np.where(self.leaf, 1 << 9 * (self.level - 1), 1)
        self.gfn, self.origin = pages["gfn"][self.page], pages["origin"][self.page]
        self.in_step = pages["unsync"][self.page] == 0
        self.guest = self._guests(shadow)

    def _guests(self, shadow: Shadow) -> Words:
        """Return the guest's entries that these stand for; 0 where a table of the guest's lies nowhere."""
        width = int(width_of(int(shadow.state["levels"][0])))
        number = self.index
        if width == 10:
            number = (
                shadow.pages["quadrant"][self.page].astype(np.int64) << 10 - self.level | self.index >> self.level - 1
            )
        gpa = np.where(self.origin >= 0, self.origin, self.gfn << PAGE_SHIFT | number << PAGE_SHIFT - width)
        word = shadow.backing[gpa >> PAGE_SHIFT]
        hpa = (word & FRAME) | (gpa & (1 << PAGE_SHIFT) - 1)
        memory = shadow.memory if width == 9 else shadow.memory.view(np.uint32)
        return np.where(word & PRESENT, memory[hpa >> PAGE_SHIFT - width], 0).astype(np.int64)

    def such(self, wrong: NDArray[np.bool_]) -> list[tuple[int, int]]:
        """Return level and first frame of those that are wrong."""
        return [*zip(self.level[wrong].tolist(), self.target[wrong].tolist(), strict=True)] if wrong.any() else []


def _reach(shadow: Shadow, frames: NDArray[Any], entries: _Entries) -> Iterator[str]:
    """Yield which entries lead to frames that are not the VM's, or that they give too much of."""
    leaf, target, size = entries.leaf, entries.target, entries.size
    shared = leaf & np.isin(target, [*shared_frames(shadow.backing)])
    for _, pfn in entries.such(shared & (entries.value & WRITE != 0)):
        yield f"isolation: a shadow entry lets the guest write to frame {pfn}, which is shared"
    state = np.where(leaf | entries.switched, int(State.GUEST), int(State.TABLE))
    first = np.minimum(target, len(frames) - 1)
    own = (first == target) & (frames["owner"][first] == shadow.owner) & (frames["state"][first] == state)
    if (size > 1).any():
        theirs = (frames["owner"] == shadow.owner) & (frames["state"] == State.GUEST)
        before = np.concatenate(([0], np.cumsum(theirs)))
        own &= (size == 1) | (before[np.minimum(target + size, len(frames))] - before[first] == size)
    for level, pfn in entries.such(~own & ~shared):
        yield f"isolation: a shadow entry of level {level} reaches frame {pfn}, which is not its own"
    tables = shadow.pages["hpa"][shadow.pages["level"] > 0] >> PAGE_SHIFT
    if (~leaf & ~entries.switched & ~np.isin(target, tables)).any():
        yield "isolation: a shadow entry leads to a table that is no shadow page"
    guarded = _guarded(shadow)
    hidden = np.array(sorted(guarded), np.int64)
    first, last = np.searchsorted(hidden, target), np.searchsorted(hidden, target + size)
    bare = leaf & (first < last) & (entries.value & _REACHES[Hide(int(shadow.state["hide"][0]))] != 0)
    for level, start, end in zip(*(column[bare].tolist() for column in (entries.level, first, last)), strict=True):
        for pfn in hidden[start:end].tolist():
            yield f"coherence: a shadow entry of level {level} lets the guest reach its table in frame {guarded[pfn]}"


def _rights(shadow: Shadow, entries: _Entries) -> Iterator[str]:
    """Yield which entries, of pages in step, give a right that the guest's do not."""
    guest, in_step, value, level = entries.guest, entries.in_step, entries.value, entries.level
    for each, _ in entries.such(in_step & ((guest & PRESENT == 0) | (value & ~guest & (WRITE | USER) != 0))):
        yield f"coherence: a shadow entry of level {each} gives rights that the guest's does not"
    if shadow.state["nx"][0]:
        for each, _ in entries.such(entries.leaf & ((value < 0) != (level > 1))):
            yield f"isolation: a shadow entry of level {each} is executable, and of a large page, or neither"
    maps = (level == 1) | (guest & LARGE != 0) | (entries.origin >= 0)
    if not shadow.state["sync"][0]:
        for each, _ in entries.such(in_step & maps & (value & WRITE != 0) & (guest & DIRTY == 0)):
            yield f"coherence: a shadow entry of level {each} lets a page be written to that is clean in the guest's"


def _lead(shadow: Shadow, entries: _Entries) -> Iterator[str]:
    """Yield which entries, of pages in step, lead to anything but what guest and host give."""
    levels, pages, in_step, origin = int(shadow.state["levels"][0]), shadow.pages, entries.in_step, entries.origin
    gfn, index, level, guest = entries.gfn, entries.index, entries.level, entries.guest
    below = (guest & FRAME) >> PAGE_SHIFT
    first = below & -(1 << int(width_of(levels)) * (level - 1))  # of a large page
    if levels == TWO_LEVEL:
        first |= np.where(level > 1, (index & 1) << 9, 0)  # a half of its 4 MiB
    below = np.where(entries.leaf & ~entries.switched, first, below)
    begin = np.where(origin >= 0, gfn + (index << 9 * (level - 1)), below)
    begin -= begin % entries.size
    backing = shadow.backing
    word = np.where(begin < len(backing), backing[np.minimum(begin, len(backing) - 1)], 0)
    there = (word & (PRESENT | SHARED) != 0) & ((word & FRAME) >> PAGE_SHIFT == entries.target)
    for each, _ in entries.such(in_step & (entries.leaf | entries.switched) & ~there):
        yield f"composition: a shadow entry of level {each} is not what guest and host give"
    used = np.flatnonzero(pages["level"] > 0)
    used = used[np.argsort(pages["hpa"][used])]
    place = np.searchsorted(pages["hpa"][used] >> PAGE_SHIFT, entries.target)
    child = used[np.minimum(place, len(used) - 1)]
    found = (pages["hpa"][child] >> PAGE_SHIFT == entries.target) & (pages["origin"][child] < 0)
    linked = in_step & ~entries.leaf & ~entries.switched & (origin < 0) & found
    quadrant = index & 1 if levels == TWO_LEVEL else 0
    other = (pages["gfn"][child] != begin) | (pages["level"][child] != level - 1)
    for each, _ in entries.such(linked & (other | (pages["quadrant"][child] != quadrant))):
        yield f"composition: a shadow entry of level {each} leads to another table's shadow"
