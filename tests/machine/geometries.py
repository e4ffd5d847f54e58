"""Tiny cores, so that everything is evicted often; each is a type of its own, compiled once."""

from __future__ import annotations

from dataclasses import replace

from vmsim.machine.layout import LEVELS, Geometry, Unit
from vmsim.machine.pwc import PwcStyle
from vmsim.machine.replacement import policy_of

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
    walkers=2,
    fill_buffers=2,
)


def _unit(sets: int, ways: int, name: str, fold: int = 0) -> Unit:
    return Unit(sets, ways, fold, policy_of(name, by_way=True))


# Prefix caches; a policy of its own in almost every unit, and an LLC that is shared out by ways.
POLICIES = replace(
    PREFIX,
    l1_tlb=[_unit(2, 4, "plru"), _unit(1, 2, "nru"), Unit(1, 1)],
    l2_tlb=[_unit(2, 8, "mru-plru4", fold=1)],
    l1=_unit(1, 12, "lru-plru4"),
    l2=_unit(2, 4, "QLRU_H00_M1_R2_U1"),
    llc=_unit(4, 5, "QLRU_H11_M1_R0_U0"),
    pwc={
        "pml4e": _unit(1, 2, "fifo"),
        "pdpte": _unit(1, 3, "random"),
        "pde": _unit(2, 2, "mru"),
        "nested_pdpte": _unit(1, 2, "lru"),
        "nested_pde": _unit(2, 3, "QLRU_H11_M1_R1_U2"),
    },
    ntlb=_unit(2, 3, "mru_n"),
    data_caches=True,
    walkers=2,
    fill_buffers=3,
    l2_pairs=True,
    seed=3,
)
# An entry-style cache that draws what it replaces, and an LLC of what leaves the L2s.
VICTIM = replace(
    ENTRY,
    l1_tlb=[_unit(1, 8, "plru")],
    l2_tlb=[_unit(2, 2, "random"), Unit(2, 1), _unit(1, 2, "fifo")],
    llc=_unit(4, 3, "lru"),
    llc_victim=True,
    peer_extra=7,
    pwc={"entries": _unit(2, 3, "random")},
)
GEOMETRIES = {
    "prefix": PREFIX,
    "entry": ENTRY,
    "wide": WIDE,
    "policies": POLICIES,
    "victim": VICTIM,
    "inclusive": replace(ENTRY, llc_inclusive=True, llc=_unit(4, 4, "lru"), l2_pairs=True),
    "wide inclusive": replace(WIDE, llc_inclusive=True),
    "duel": replace(
        PREFIX,
        llc=Unit(8, 3, 0, policy_of("QLRU_H11_M1_R1_U2/QLRU_H11_MR161_R1_U2")),
        llc_leaders=([0, 5], [3]),
        llc_inclusive=True,
        data_caches=True,
        seed=5,
    ),
    "wide victim": replace(WIDE, llc_victim=True, peer_extra=40, l2_pairs=True),
}
