"""Invalidations: each removes what its manual says and no more.

INVLPG and INVPCID/INVVPID of one address: Intel SDM vol. 3A §5.10.4.1, vol. 3C §30.4.3; AMD APM vol. 2 §5.5.2, §15.16.
Entries tagged by gva (linear and combined mappings) carry the asid of the address space; those tagged by gpa
(guest-physical mappings: nested page walk caches, nested TLB) that of the nested tables (EP4TA).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.layout import Keyed
from vmsim.machine.sets import EMPTY, Place, drop_at, drop_way, words_of_set
from vmsim.machine.tlb import ASID_SHIFT

__all__ = [
    "ASIDS",
    "LINEAR",
    "NESTED",
    "Flusher",
    "flush_asid",
    "forget",
    "forget_asids",
    "forget_faulting",
    "forget_pages",
    "forget_space",
    "invalidate",
    "invalidate_page",
    "places_of",
    "words_of_cores",
]

ASIDS = 1 << 16  # a tag is a positive int64, and the asid what stands above ASID_SHIFT

_NO_ASID = np.zeros(ASIDS, bool)

# What a unit keeps.
PAGES = 1  # translations of pages, by gva
PREFIXES = 2  # tables, by prefix of the gva
STEPS = 4  # entries, by their own address: they have no asid, so any flush empties all
NESTED = 8  # anything by gpa

LINEAR = PAGES | PREFIXES | STEPS

_UNITS = {
    **{f"{level}_tlb{number}": PAGES for level in ("l1", "l2") for number in range(3)},
    **dict.fromkeys(("pde", "pdpte", "pml4e", "pml5e"), PREFIXES),
    "pwc": STEPS,
    **dict.fromkeys(("nested_pde", "nested_pdpte", "nested_pml4e", "nested_pml5e", "ntlb"), NESTED),
}

# The kernels act on cores of any geometry: on their words, int64[cores, words of a core], and on a list of where the
# units are in them, int64[units, 7]: what is kept, first word, sets, ways, policy, fold, a bit for each page size.
_KEPT, _FIRST, _SETS, _WAYS, _POLICY, _FOLD, _SIZES = range(7)


def places_of(core: np.ndarray) -> np.ndarray:
    """Return where the units of a core, record[1], are in its words, int64[units, 7]."""
    units = core["units"][0]
    home, numbers = units["home"], np.array([Keyed[name.upper()] for name in _UNITS])
    sizes = (numbers[:, None, None] == home).any(axis=1) @ np.array([1, 2, 4])
    return np.column_stack((np.array([*_UNITS.values()]), units["place"][numbers, : Place.NOTES], sizes))


def words_of_cores(cores: np.ndarray) -> np.ndarray:
    """Return the words of cores, int64[cores, words]."""
    return cores.view(np.int64).reshape(len(cores), -1)


@kernel
def forget_asids(words, units, gone, kinds):
    """Empty every way of the units of `kinds` whose asid is `gone` (bool[ASIDS]); the others keep their age."""
    for core in range(words.shape[0]):
        for unit in range(units.shape[0]):
            kind = units[unit, _KEPT]
            ways, policy = units[unit, _WAYS], units[unit, _POLICY]
            if kind & kinds == 0:
                continue
            for index in range(units[unit, _SETS]):
                tags = units[unit, _FIRST] + index * words_of_set(ways, policy)
                if policy == 0 and words[core, tags] == EMPTY:  # the empty ways are the last
                    continue
                for way in range(ways - 1, -1, -1):
                    tag = words[core, tags + way]
                    if tag != EMPTY and (kind == STEPS or gone[tag >> ASID_SHIFT]):
                        drop_way(words[core], tags, ways, policy, way)


@leaf
def _invalidate_pages(words, units, core, unit, size, asid, first, last):
    """Empty the ways of a unit that translate addresses in [first, last] by pages of a size: set by set, or by page."""
    ways, policy = units[unit, _WAYS], units[unit, _POLICY]
    sets = units[unit, _SETS]
    shift = PAGE_SHIFT + 9 * size
    low = first >> shift
    high = last >> shift
    tag_low = asid << ASID_SHIFT | low << 2 | size
    tag_high = asid << ASID_SHIFT | high << 2 | size
    for vpn in range(low, min(high, low + sets - 1) + 1):
        index = vpn - low if high - low >= sets else (vpn ^ (vpn >> units[unit, _FOLD])) & (sets - 1)
        tags = units[unit, _FIRST] + index * words_of_set(ways, policy)
        for way in range(ways - 1, -1, -1):
            tag = words[core, tags + way]
            if tag_low <= tag <= tag_high and tag & 3 == size:
                drop_way(words[core], tags, ways, policy, way)


@routine
def forget_space(words, units, asid):
    """Have one core, int64[1, words], forget all that it keeps of gvas of an asid: a reload of CR3."""
    for unit in range(units.shape[0]):
        kind = units[unit, _KEPT]
        ways, policy = units[unit, _WAYS], units[unit, _POLICY]
        if kind == NESTED:
            continue
        for index in range(units[unit, _SETS]):
            tags = units[unit, _FIRST] + index * words_of_set(ways, policy)
            for way in range(ways - 1, -1, -1):
                tag = words[0, tags + way]
                if tag != EMPTY and (kind == STEPS or tag >> ASID_SHIFT == asid):
                    drop_way(words[0], tags, ways, policy, way)


@kernel
def forget_pages(words, units, asid, first, last):
    """Empty every TLB way that translates an address in [first, last] of `asid`, and the asid's page walk caches."""
    for core in range(words.shape[0]):
        for unit in range(units.shape[0]):
            kind = units[unit, _KEPT]
            if kind == PAGES:
                for size in range(3):
                    if units[unit, _SIZES] & (1 << size):
                        _invalidate_pages(words, units, core, unit, size, asid, first, last)
            elif kind != NESTED:
                ways, policy = units[unit, _WAYS], units[unit, _POLICY]
                for index in range(units[unit, _SETS]):
                    tags = units[unit, _FIRST] + index * words_of_set(ways, policy)
                    for way in range(ways - 1, -1, -1):
                        tag = words[core, tags + way]
                        if tag != EMPTY and (kind == STEPS or tag >> ASID_SHIFT == asid):
                            drop_way(words[core], tags, ways, policy, way)


class Flusher:
    """What is forgotten on any of some cores of one geometry.

    Parameters
    ----------
    cores : record[:]
        What `layout.make_cores` gave, or a slice of it.
    """

    def __init__(self, cores: np.ndarray) -> None:
        self._words = words_of_cores(cores)
        self._units = places_of(cores[:1])
        self._steps = self._units[self._units[:, _KEPT] == STEPS]

    def forget(self, first: int, last: int, gone: np.ndarray, kinds: int) -> None:
        """Forget what the units of `kinds` keep for the asids that are `gone` (bool[ASIDS]) on cores [first, last)."""
        forget_asids(self._words[first:last], self._units, gone, kinds)

    def forget_steps(self, cores: Collection[int]) -> None:
        """Forget what some cores keep without an asid, which a flush of any asid takes along."""
        if not self._steps[0, _SETS]:
            return
        every = len(cores) == len(self._words)
        for words in [self._words] if every else [self._words[core : core + 1] for core in cores]:
            forget_asids(words, self._steps, _NO_ASID, STEPS)

    def invalidate(self, core: int, asid: int, first: int, last: int) -> None:
        """Forget on a core the translations of all addresses in [first, last]: an INVLPG for each page there."""
        forget_pages(self._words[core : core + 1], self._units, asid, first, last)


def forget(cores: np.ndarray, gone: np.ndarray, kinds: int) -> None:
    """Forget what the units of `kinds` keep for some asids, on all the cores given.

    Parameters
    ----------
    cores : record[:]
        A slice of what `layout.make_cores` gave.
    gone : bool[ASIDS]
        Which asids.
    kinds : int
        LINEAR (INVVPID, INVPCID), NESTED, or both (INVEPT, or a flush of an ASID).
    """
    Flusher(cores).forget(0, len(cores), gone, kinds)


def flush_asid(cores: np.ndarray, asid: int) -> None:
    """Forget all that any of the cores keeps under an asid (which comes shifted by ASID_SHIFT)."""
    gone = np.zeros(ASIDS, bool)
    gone[asid >> ASID_SHIFT] = True
    forget(cores, gone, LINEAR | NESTED)


def invalidate(cores: np.ndarray, asid: int, first: int, last: int) -> None:
    """Forget the translations of all addresses in [first, last]: an INVLPG for each page there, on the cores given."""
    forget_pages(words_of_cores(cores), places_of(cores[:1]), asid >> ASID_SHIFT, first, last)


def invalidate_page(cores: np.ndarray, asid: int, gva: int, order: int) -> None:
    """INVLPG: forget a page of 2**order frames, in whatever pieces, and the address space's page walk caches."""
    inside = (1 << (PAGE_SHIFT + order)) - 1
    invalidate(cores, asid, gva & ~inside, gva | inside)


@routine
def forget_faulting(words, units, asid, nested_asid, gva, gpa, code, width, nested_width):
    """Forget what a faulting access used, so that the fault does not recur once its cause is mended.

    A page fault forgets the prefixes of its gva (SDM vol. 3A §5.10.4.1), an EPT violation those of its gpa as well
    (vol. 3C §30.4.3.1); the TLBs hold nothing for the gva, for it missed. An entry-style cache keeps only present
    entries: it is emptied where one of them denied a right. The widths are how many bits of a gva and a gpa a table
    translates; tables of 10 bits have no prefix but the first.
    """
    for above in range(4):
        prefix = gva >> (PAGE_SHIFT + width + 9 * above)
        drop_at(words, units, Keyed.PDE + above, prefix, asid | prefix)
        if gpa >= 0:
            prefix = gpa >> (PAGE_SHIFT + nested_width + 9 * above)
            drop_at(words, units, Keyed.NESTED_PDE + above, prefix, nested_asid | prefix)
    if gpa >= 0:
        drop_at(words, units, np.int64(Keyed.NTLB), gpa >> PAGE_SHIFT, nested_asid | gpa >> PAGE_SHIFT)
    if code & 1:
        place = units.place[Keyed.PWC]
        ways = place[Place.WAYS]
        for index in range(place[Place.SETS]):
            for way in range(ways):
                words[place[Place.FIRST] + index * words_of_set(ways, place[Place.POLICY]) + way] = EMPTY
