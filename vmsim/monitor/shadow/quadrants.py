"""Which of a guest's entries a shadow entry stands for, and which shadow pages CR3 leads to.

A shadow page has 512 entries of 8 bytes. So has a table of a guest in PAE or long mode, and one page stands for it. A
table of 32-bit paging has 1,024 entries of 4 bytes, and is shadowed under PAE: by two pages of level 1, which map half
of its 4 MiB each, or by four of level 2, which map 1 GiB each and have two entries for one of the guest's, 2 MiB each.
Which of them a page is, is its quadrant (Linux Documentation/virt/kvm/x86/mmu.rst, role.quadrant and
role.has_4_byte_gpte; arch/x86/kvm/mmu/mmu.c, `get_written_sptes`).

Under PAE CR3 holds a page of four PDPTEs, which the processor keeps in registers until CR3 is loaded again: the
monitor's `pae_root`, each vCPU's own. Each leads to a page of level 2, for a quadrant of the guest's root or for the
table that a PDPTE of its own leads to (mmu.c, `mmu_alloc_shadow_roots`). The guest's PDPTEs are not shadowed: they are
what its last load of CR3 has read (arch/x86/kvm/x86.c, `load_pdptrs`).
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import leaf
from vmsim.machine.formats import FRAME, PAGE_SHIFT, PDPTE_RESERVED, PRESENT, TWO_LEVEL
from vmsim.machine.memory import read_entry, width_of, write_entry
from vmsim.monitor.shadow.records import NO_PAGE

__all__ = [
    "first_frame",
    "guest_place",
    "in_cr3",
    "nodes_of",
    "quadrant_below",
    "read_gpte",
    "root_for",
    "root_frame",
    "under_pae",
    "write_gpte",
]


@leaf
def under_pae(state):
    """Return whether the shadow's tables are PAE's, as those of all 32-bit guests are."""
    return state.top == 2


@leaf
def read_gpte(state, memory, hpa):
    """Return the guest's entry at `hpa`."""
    return read_entry(memory, hpa, width_of(state.levels))


@leaf
def write_gpte(state, memory, hpa, entry):
    """Store a guest's entry at `hpa`."""
    write_entry(memory, hpa, entry, width_of(state.levels))


@leaf
def guest_place(state, pages, node):
    """Return the gpa of the guest's entry that a shadow entry stands for."""
    page = pages[node >> 9]
    if page.origin >= 0:
        return np.int64(page.origin)
    at = node & 511
    if state.levels != TWO_LEVEL:
        return page.gfn << PAGE_SHIFT | at << 3
    level = np.int64(page.level)
    return page.gfn << PAGE_SHIFT | (np.int64(page.quadrant) << (10 - level) | at >> (level - 1)) << 2


@leaf
def nodes_of(state, pages, page, gpa):
    """Return the first shadow entry of a page that stands for the guest's entry at `gpa`, and how many do: 0, 1, 2."""
    if state.levels != TWO_LEVEL:
        return page << 9 | ((gpa >> 3) & 511), np.int64(1)
    level = np.int64(pages[page].level)
    first = ((gpa >> 2) & 1023) << (level - 1)  # of those of all quadrants
    return page << 9 | (first & 511), level if first >> 9 == pages[page].quadrant else np.int64(0)


@leaf
def first_frame(state, node, entry, level):
    """Return the first guest frame that a shadow entry of `level` maps for the guest's leaf `entry` of that level."""
    gfn = (entry & FRAME) >> PAGE_SHIFT
    if level > 1:
        gfn &= ~((1 << (width_of(state.levels) * (level - 1))) - 1)
        if state.levels == TWO_LEVEL:  # one of the halves of 4 MiB
            gfn |= (node & 1) << 9
    return gfn


@leaf
def quadrant_below(state, node):
    """Return the quadrant of the page that an entry of level 2 leads to."""
    return node & 1 if state.levels == TWO_LEVEL else np.int64(0)


@leaf
def root_for(state, cpu, gva):
    """Return the shadow page in which a vCPU's walk for `gva` begins."""
    return cpu.roots[(gva >> 30) & 3] if under_pae(state) else cpu.roots[0]


@leaf
def in_cr3(pages, page):
    """Return whether some vCPU's CR3 leads to a page, itself or by a PDPTE."""
    return pages[page].roots > 0


@leaf
def root_frame(state, cpu, gfn, number):
    """Return the guest frame whose table PDPTE `number` of the shadow stands for; NO_PAGE: none."""
    if state.levels == TWO_LEVEL:
        return gfn
    entry = cpu.pdpte[number]
    below = (entry & FRAME) >> PAGE_SHIFT
    if entry & PRESENT == 0 or entry & PDPTE_RESERVED or below >= state.frames:
        return np.int64(NO_PAGE)
    return below
