"""Invalidations: each removes what its manual says and no more.

INVLPG and INVPCID/INVVPID of one address: Intel SDM vol. 3A §5.10.4.1, vol. 3C §29.4.3; AMD APM vol. 2 §5.5.2, §15.16.
"""

from __future__ import annotations

from vmsim.jit import kernel, leaf
from vmsim.machine.sets import EMPTY
from vmsim.machine.tlb import ASID_SHIFT, drop_page, tag_of

__all__ = ["flush_asid", "invalidate_page"]


@leaf
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


@leaf
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
def invalidate_page(cores, asid, gva):
    """INVLPG: forget the translations of a page, whatever its size, and the address space's page walk caches."""
    for number in range(len(cores)):
        core = cores[number]
        for size in range(3):
            drop_page(core, size, tag_of(asid, gva, size))
        _flush_walk_caches(core, asid)
