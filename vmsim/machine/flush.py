"""Invalidations: each removes what its manual says and no more.

INVLPG and INVPCID/INVVPID of one address: Intel SDM vol. 3A §5.10.4.1, vol. 3C §30.4.3; AMD APM vol. 2 §5.5.2, §15.16.
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, routine
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.pwc import prefix_set
from vmsim.machine.sets import EMPTY, drop
from vmsim.machine.tlb import ASID_SHIFT

__all__ = ["flush_asid", "forget_faulting", "invalidate", "invalidate_page"]

_TLBS = ("l1_tlb0", "l1_tlb1", "l1_tlb2", "l2_tlb0", "l2_tlb1", "l2_tlb2")
_WALK_CACHES = ("pde", "pdpte", "pml4e", "pml5e")
_NESTED = ("nested_pde", "nested_pdpte", "nested_pml4e", "nested_pml5e", "ntlb")

# These act on any unit of any geometry: tags and values of all cores, int64[cores, sets, ways].


@kernel
def _forget(tags, values, asid):
    """Empty every way whose tag belongs to `asid` (shifted); the others keep their age."""
    for core in range(tags.shape[0]):
        for index in range(tags.shape[1]):
            kept = 0
            for way in range(tags.shape[2]):
                if tags[core, index, way] >> ASID_SHIFT != asid >> ASID_SHIFT:
                    tags[core, index, kept] = tags[core, index, way]
                    values[core, index, kept] = values[core, index, way]
                    kept += 1
            for way in range(kept, tags.shape[2]):
                tags[core, index, way] = EMPTY


@kernel
def _forget_within(tags, values, asid, first, last):
    """Empty every TLB way that translates an address in [first, last] of `asid`; the others keep their age."""
    for core in range(tags.shape[0]):
        for index in range(tags.shape[1]):
            kept = 0
            for way in range(tags.shape[2]):
                tag = tags[core, index, way]
                shift = PAGE_SHIFT + 9 * (tag & 3)
                start = ((tag & ((1 << ASID_SHIFT) - 1)) >> 2) << shift
                if tag >> ASID_SHIFT != asid >> ASID_SHIFT or start > last or start + (1 << shift) <= first:
                    tags[core, index, kept] = tag
                    values[core, index, kept] = values[core, index, way]
                    kept += 1
            for way in range(kept, tags.shape[2]):
                tags[core, index, way] = EMPTY


def flush_asid(cores: np.ndarray, asid: int) -> None:
    """Forget all that any core keeps for an address space: INVVPID single-context with INVEPT, or an ASID flush."""
    for unit in (*_TLBS, *_NESTED):
        _forget(cores[unit]["tag"], cores[unit]["value"], asid)
    _flush_walk_caches(cores, asid)


def invalidate(cores: np.ndarray, asid: int, first: int, last: int) -> None:
    """Forget the translations of all addresses in [first, last]: an INVLPG for each page there, on every core."""
    for unit in _TLBS:
        _forget_within(cores[unit]["tag"], cores[unit]["value"], asid, first, last)
    _flush_walk_caches(cores, asid)


def invalidate_page(cores: np.ndarray, asid: int, gva: int, order: int) -> None:
    """INVLPG: forget a page of 2**order frames, in whatever pieces, and the address space's page walk caches."""
    inside = (1 << (PAGE_SHIFT + order)) - 1
    invalidate(cores, asid, gva & ~inside, gva | inside)


def _flush_walk_caches(cores: np.ndarray, asid: int) -> None:
    """Empty the page walk caches of an address space; the entry-style one, which carries no asid, wholly."""
    for unit in _WALK_CACHES:
        _forget(cores[unit]["tag"], cores[unit]["value"], asid)
    cores["pwc"]["tag"] = EMPTY


@routine
def _drop_prefix(sets, asid, address, shift):
    prefix = address >> shift
    drop(sets, prefix_set(sets, prefix), asid | prefix)


@routine
def forget_faulting(core, asid, gva, gpa, code):
    """Forget what a faulting access used, so that the fault does not recur once its cause is mended.

    A page fault forgets the prefixes of its gva (SDM vol. 3A §5.10.4.1), an EPT violation those of its gpa as well
    (vol. 3C §30.4.3.1); the TLBs hold nothing for the gva, for it missed. An entry-style cache keeps only present
    entries: it is emptied where one of them denied a right.
    """
    _drop_prefix(core.pde, asid, gva, 21)
    _drop_prefix(core.pdpte, asid, gva, 30)
    _drop_prefix(core.pml4e, asid, gva, 39)
    _drop_prefix(core.pml5e, asid, gva, 48)
    if gpa >= 0:
        _drop_prefix(core.nested_pde, asid, gpa, 21)
        _drop_prefix(core.nested_pdpte, asid, gpa, 30)
        _drop_prefix(core.nested_pml4e, asid, gpa, 39)
        _drop_prefix(core.nested_pml5e, asid, gpa, 48)
        _drop_prefix(core.ntlb, asid, gpa, PAGE_SHIFT)
    if code & 1:
        for index in range(len(core.pwc)):
            tags = core.pwc[index].tag
            for way in range(len(tags)):
                tags[way] = EMPTY
