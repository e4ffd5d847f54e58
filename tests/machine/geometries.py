"""Three tiny cores, so that everything is evicted often; each is a type of its own, compiled once."""

from __future__ import annotations

from vmsim.machine.layout import LEVELS, Geometry, Unit
from vmsim.machine.pwc import PwcStyle

# Intel-like: arrays per page size, prefix caches, walks enter the L1.
PREFIX = Geometry(
    l1_tlb=[Unit(2, 2), Unit(1, 2), Unit(1, 1)],
    l2_tlb=[Unit(4, 2)],
    l1=Unit(2, 2),
    l2=Unit(4, 2),
    llc=Unit(8, 2),
    latency=(4, 14, 50, 200),
    pwc={
        "pml4e": Unit(1, 1),
        "pdpte": Unit(1, 2),
        "pde": Unit(2, 2),
        "nested_pdpte": Unit(1, 2),
        "nested_pde": Unit(2, 1),
    },
    ntlb=Unit(2, 2),
    ntlb_cycles=1,
    l2_tlb_cycles=7,
    walk_start=5,
    ad_cycles=30,
)
# AMD-like: one fully associative first level for all sizes, a cache of entries of both dimensions, walks enter the L2.
ENTRY = Geometry(
    l1_tlb=[Unit(1, 4)],
    l2_tlb=[Unit(2, 2), Unit(2, 1), Unit(1, 2)],
    l1=Unit(2, 1),
    l2=Unit(2, 2),
    llc=Unit(4, 3),
    l1_home=(0, 0, 0),
    l2_home=(0, 1, 2),
    latency=(3, 16, 52, 190),
    pwc_style=PwcStyle.ENTRY,
    pwc={"entries": Unit(2, 3)},
    pwc_lowest=2,
    pwc_nested_lowest=1,
    pwc_cycles=2,
    ntlb=Unit(1, 3),
    ntlb_cycles=2,
    l2_tlb_cycles=7,
    walker_enters=1,
    ad_cycles=20,
    data_caches=True,
)
# Five levels, XOR-indexed TLBs, no nested TLB, an LLC of three slices, data through the caches.
WIDE = Geometry(
    l1_tlb=[Unit(4, 1, fold=2), Unit(2, 1)],
    l2_tlb=[Unit(4, 3, fold=2), Unit(2, 2, fold=1)],
    l1=Unit(4, 1),
    l2=Unit(4, 2),
    llc=Unit(12, 2),
    l1_home=(0, 1, 1),
    l2_home=(0, 0, 1),
    llc_slices=3,
    latency=(5, 14, 60, 250),
    pwc={
        "pml5e": Unit(1, 1),
        "pml4e": Unit(1, 2),
        "pdpte": Unit(2, 1),
        "pde": Unit(2, 3),
        "nested_pml5e": Unit(1, 1),
        "nested_pml4e": Unit(1, 1),
        "nested_pdpte": Unit(2, 2),
        "nested_pde": Unit(1, 4),
    },
    pwc_nested_lowest=LEVELS,
    walk_start=3,
    data_caches=True,
)
GEOMETRIES = {"prefix": PREFIX, "entry": ENTRY, "wide": WIDE}
