"""Whether a shadow is what it must be, entry by entry: for `--check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Words
from vmsim.frames.buddy import State
from vmsim.machine.formats import DIRTY, FRAME, LARGE, PAGE_SHIFT, PRESENT, SWITCH, TWO_LEVEL, USER, WRITE
from vmsim.machine.memory import read_entry, width_of
from vmsim.monitor.shadow.quadrants import first_frame, guest_place
from vmsim.monitor.shadow.records import Hide, ShadowTables
from vmsim.tables.backing import host_address, locate_page, shared_frames

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
    def memory_root(self) -> tuple[int, int]:
        """Root and levels of the tables that give hpas of gpas."""
        ...

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
    by_frame = {int(pages["hpa"][page]): int(page) for page in used}
    stocks = zip(shadow.tables.stock, shadow.cpus["stock"], strict=True)
    stock = np.concatenate([frames[:count] for frames, count in stocks])
    pointers = shadow.cpus["pae_root"].tolist()
    tables = np.array([*by_frame, *(each for each in pointers if each >= 0)], np.int64) >> PAGE_SHIFT
    held = [(tables, State.TABLE), (stock, State.POOL)]
    if any(
        (frames[pfns]["owner"] != shadow.owner).any() or (frames[pfns]["state"] != state).any() for pfns, state in held
    ):
        yield "isolation: a shadow page is not its own"
    if len({*tables.tolist(), *stock.tolist()}) != shadow.frames_held:
        yield "conservation: a frame is two shadow pages"
    guarded, shared = _guarded(shadow), shared_frames(shadow.backing)
    roots = Counter(int(root) for root in shadow.cpus["roots"].ravel() if root >= 0)
    if any(pages["roots"][page] != roots[page] for page in range(len(pages))):
        yield "coherence: a shadow page is the root of more or fewer vCPUs than it counts"
    for cpu, place in enumerate(pointers):
        if place >= 0 and cpu not in shadow.loading:
            yield from _of_pointers(shadow, cpu, by_frame, memory[place >> 3 : (place >> 3) + 4].tolist())
    for page in used.tolist():
        place = int(pages["hpa"][page]) >> 3
        entries = memory[place : place + 512]
        for index in np.flatnonzero(entries).tolist():
            yield from _of_entry(shadow, frames, by_frame, guarded, shared, page, index, int(entries[index]))


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


def _of_entry(
    shadow: Shadow,
    frames: NDArray[Any],
    by_frame: dict[int, int],
    guarded: dict[int, int],
    shared: set[int],
    page: int,
    index: int,
    entry: int,
) -> Iterator[str]:
    memory, record = shadow.memory, shadow.pages[page]
    level = int(record["level"])
    target = entry & FRAME
    switch = entry & SWITCH
    leaf = level == 1 or entry & LARGE
    size = 1 << 9 * (level - 1) if leaf else 1
    reached = frames[target >> PAGE_SHIFT :][:size]
    state = State.GUEST if leaf or switch else State.TABLE
    if leaf and target >> PAGE_SHIFT in shared:
        if entry & WRITE:
            yield f"isolation: a shadow entry lets the guest write to frame {target >> PAGE_SHIFT}, which is shared"
    elif (reached["owner"] != shadow.owner).any() or (reached["state"] != state).any():
        yield f"isolation: a shadow entry of level {level} reaches frame {target >> PAGE_SHIFT}, which is not its own"
    if not leaf and not switch and target not in by_frame:
        yield "isolation: a shadow entry leads to a table that is no shadow page"
    if leaf and entry & _REACHES[Hide(int(shadow.state["hide"][0]))]:
        for pfn in guarded.keys() & range(target >> PAGE_SHIFT, (target >> PAGE_SHIFT) + size):
            yield f"coherence: a shadow entry of level {level} lets the guest reach its table in frame {guarded[pfn]}"
    if record["unsync"]:
        return
    gfn = int(record["gfn"])
    origin = int(record["origin"])
    levels = int(shadow.state["levels"][0])
    gpa = int(guest_place(shadow.state[0], shadow.pages, page << 9 | index))
    guest = int(read_entry(memory, host_address(shadow.backing, gpa), width_of(levels)))
    if not guest & PRESENT or entry & ~guest & (WRITE | USER):
        yield f"coherence: a shadow entry of level {level} gives rights that the guest's does not"
    maps = level == 1 or guest & LARGE != 0 or origin >= 0
    if maps and not shadow.state["sync"][0] and entry & WRITE and not guest & DIRTY:
        yield f"coherence: a shadow entry of level {level} lets a page be written to that is clean in the guest's"
    below = (guest & FRAME) >> PAGE_SHIFT
    if origin >= 0:
        below = gfn + (index << 9 * (level - 1))
    elif leaf and not switch:
        below = int(first_frame(shadow.state[0], index, guest, level))
    if leaf or switch:
        hpa, backed, _ = locate_page(shadow.backing, (below & ~(size - 1)) << PAGE_SHIFT)
        if backed == 0 or hpa != target:
            yield f"composition: a shadow entry of level {level} is not what guest and host give"
    elif origin < 0 and target in by_frame:
        child = shadow.pages[by_frame[target]]
        quadrant = index & 1 if levels == TWO_LEVEL else 0
        if child["origin"] < 0 and (*child[["gfn", "level", "quadrant"]],) != (below, level - 1, quadrant):
            yield f"composition: a shadow entry of level {level} leads to another table's shadow"
