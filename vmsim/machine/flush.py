"""Invalidations: each removes what its manual says and no more.

INVLPG and INVPCID/INVVPID of one address: Intel SDM vol. 3A §5.10.4.1, vol. 3C §29.4.3; AMD APM vol. 2 §5.5.2, §15.16.
"""

from __future__ import annotations

from vmsim.jit import kernel
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.pwc import prefix_set
from vmsim.machine.sets import EMPTY, drop
from vmsim.machine.tlb import ASID_SHIFT, drop_page, tag_of

__all__ = ["flush_asid", "forget_faulting", "invalidate_page"]


@kernel
def _forget(sets, asid):
    """Empty every way whose tag belongs to `asid` (shifted); the others keep their age."""
    for index in range(len(sets)):
        tags = sets[index].tag
        values = sets[index].value
        kept = 0
        for way in range(len(tags)):
            if tags[way] >> ASID_SHIFT != asid >> ASID_SHIFT:
                tags[kept] = tags[way]
                values[kept] = values[way]
                kept += 1
        for way in range(kept, len(tags)):
            tags[way] = EMPTY


@kernel
def _empty(sets):
    """Empty every way."""
    for index in range(len(sets)):
        tags = sets[index].tag
        for way in range(len(tags)):
            tags[way] = EMPTY


@kernel
def _flush_walk_caches(core, asid):
    """Empty the page walk caches of an address space; entry-style ones, which carry no tag, wholly."""
    _forget(core.pde, asid)
    _forget(core.pdpte, asid)
    _forget(core.pml4e, asid)
    _forget(core.pml5e, asid)
    _empty(core.pwc)


@kernel
def flush_asid(cores, asid):
    """Forget all that any core keeps for an address space: INVVPID single-context with INVEPT, or an ASID flush."""
    for number in range(len(cores)):
        core = cores[number]
        _forget(core.l1_tlb0, asid)
        _forget(core.l1_tlb1, asid)
        _forget(core.l1_tlb2, asid)
        _forget(core.l2_tlb0, asid)
        _forget(core.l2_tlb1, asid)
        _forget(core.l2_tlb2, asid)
        _flush_walk_caches(core, asid)
        _forget(core.nested_pde, asid)
        _forget(core.nested_pdpte, asid)
        _forget(core.nested_pml4e, asid)
        _forget(core.nested_pml5e, asid)
        _forget(core.ntlb, asid)


@kernel
def _forget_within(sets, asid, first, last):
    """Empty every way that translates an address in [first, last] of an address space."""
    for index in range(len(sets)):
        tags = sets[index].tag
        values = sets[index].value
        kept = 0
        for way in range(len(tags)):
            tag = tags[way]
            size = tag & 3
            shift = PAGE_SHIFT + 9 * size
            start = ((tag & ((1 << ASID_SHIFT) - 1)) >> 2) << shift
            if tag >> ASID_SHIFT != asid >> ASID_SHIFT or start > last or start + (1 << shift) <= first:
                tags[kept] = tag
                values[kept] = values[way]
                kept += 1
        for way in range(kept, len(tags)):
            tags[way] = EMPTY


@kernel
def invalidate_page(cores, asid, gva, order):
    """INVLPG: forget a page of 2**order frames, in whatever pieces, and the address space's page walk caches."""
    first = gva & ~((1 << (PAGE_SHIFT + order)) - 1)
    last = gva | ((1 << (PAGE_SHIFT + order)) - 1)
    for number in range(len(cores)):
        core = cores[number]
        if order == 0:
            for size in range(3):
                drop_page(core, size, tag_of(asid, gva, size))
        else:
            _forget_within(core.l1_tlb0, asid, first, last)
            _forget_within(core.l1_tlb1, asid, first, last)
            _forget_within(core.l1_tlb2, asid, first, last)
            _forget_within(core.l2_tlb0, asid, first, last)
            _forget_within(core.l2_tlb1, asid, first, last)
            _forget_within(core.l2_tlb2, asid, first, last)
        _flush_walk_caches(core, asid)


@kernel
def _drop_prefix(sets, asid, address, shift):
    prefix = address >> shift
    drop(sets, prefix_set(sets, prefix), asid | prefix)


@kernel
def forget_faulting(core, asid, gva, gpa, code):
    """Forget what a faulting access used, so that the fault does not recur once its cause is mended.

    A page fault forgets the prefixes of its gva (SDM vol. 3A §5.10.4.1), an EPT violation those of its gpa as well
    (vol. 3C §29.4.3.1); the TLBs hold nothing for the gva, for it missed. An entry-style cache keeps only present
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
        _empty(core.pwc)
