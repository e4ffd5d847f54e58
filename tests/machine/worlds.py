"""A world: tables in simulated memory, cores and VMs, and the twin's copy of all of it, to be run side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from tests.oracle import bits
from tests.oracle import core as twin_core
from tests.oracle import vcpu as twin_vcpu
from tests.oracle.tables import Words
from tests.oracle.translation import Table, Translation
from tests.oracle.window import Window
from vmsim.machine import formats, layout, tlb, vcpu
from vmsim.machine.caches import Served
from vmsim.machine.formats import SEALED
from vmsim.machine.memory import physical_memory

NESTED_ASIDS = 20  # the tags of what is kept by gpa are others than of what is kept by gva
FAR = 1 << 35  # data pages lie here: only tables have contents
GIB = 1 << 30
NESTED_FORMATS = {"ept": formats.EPT(ad_bits=False), "ept-ad": formats.EPT(ad_bits=True), "npt": formats.NPT}
TABLE = bits.P | bits.RW | bits.US
HOST_TABLE = {"ept": 0b111, "ept-ad": 0b111, "npt": TABLE}


@cache
def memory() -> np.ndarray:
    """Return the memory of all worlds: 3 GiB, of which only tables are ever touched."""
    return physical_memory(3 << 18)


@dataclass
class World:
    """Memory as the twin keeps it, and what a VM needs to know of it."""

    words: Words
    mode: str
    levels: int
    nested_levels: int
    cr3: int
    nested_root: int
    pages: list[int]  # gvas to access
    agile: bool = False
    pages_1g: bool = True

    def vm(self, asid: int) -> tuple[np.ndarray, twin_vcpu.Vcpu]:
        """Return a VM's registers and its twin."""
        registers = layout.make_vm(self.levels)
        vm = registers[0]
        vm.asid = asid << tlb.ASID_SHIFT
        vm.nested_asid = asid + NESTED_ASIDS << tlb.ASID_SHIFT
        vm.cr3, vm.levels = self.cr3, self.levels
        pdptes = self.levels == 3 and self.mode != "npt"
        vm.nested_root, vm.nested_levels = self.nested_root, self.nested_levels
        vm.switch = bits.SWITCH if self.agile else 0
        vm.largest = 3 if self.pages_1g else 2
        if self.nested_levels:
            form = NESTED_FORMATS[self.mode]
            vm.nested_present, vm.nested_needed = form.present, form.needed
            vm.nested_accessed, vm.nested_dirty = form.accessed, form.dirty
            vm.table_writes = self.mode != "ept"
        twin = twin_vcpu.Vcpu(
            self.words,
            asid=asid,
            nested_asid=asid + NESTED_ASIDS,
            mode=self.mode,
            cr3=self.cr3,
            levels=self.levels,
            nested_root=self.nested_root,
            nested_levels=self.nested_levels,
            agile=self.agile,
            pdptes=pdptes,
            pages_1g=self.pages_1g,
        )
        if pdptes:
            vm.levels, vm.pdpte[:] = 2, twin.pdptes
        return registers, twin


class Pair:
    """Cores of a geometry and their twins on one world."""

    def __init__(self, world: World, geometry: layout.Geometry, cores: int = 1, vms: int = 1) -> None:
        self.world = world
        self.memory = memory()
        self.words = self.memory.view(np.uint64)
        for hpa, word in world.words.items():
            self.words[hpa >> 3] = word
        self.cores = layout.make_cores(geometry, cores)
        self.llc = layout.make_llc(geometry, cores)
        states = self.llc["notes"][:, 2] if any(geometry.llc_leaders) else self.llc["age"][:, :1].sum(axis=1)
        self.twin_llc = twin_core.Llc(geometry, states.copy())
        self.twin_cores = [
            twin_core.Core(geometry, self.twin_llc, number, partial(draws, self.cores[number]))
            for number in range(cores)
        ]
        self.vms = [world.vm(asid + 1) for asid in range(vms)]
        for registers, twin in self.vms:
            registers[0].compute = twin.compute = 3

    def overlap(self, accesses: int) -> None:
        """Have so many accesses in the window at once; the cores say how many walkers and buffers they have."""
        for registers, twin in self.vms:
            registers[0].in_flight = accesses
            twin.window = Window(accesses, int(self.cores[0].walkers), int(self.cores[0].fill_buffers))

    def share_out(self, ways: list[set[int]]) -> None:
        """Give each VM the ways of the LLC that it may fill."""
        for (registers, twin), its in zip(self.vms, ways, strict=True):
            registers[0].llc_ways = sum(1 << way for way in its)
            twin.llc_ways = its

    def divide(self, nodes: list[tuple[int, list[int]]]) -> None:
        """Divide memory into nodes: the first hpa after each, and how many cycles its DRAM takes each core."""
        for core, made in enumerate(self.cores):
            ends, extra = zip(*[(end, cycles[core] - int(made.latency[3])) for end, cycles in nodes], strict=True)
            layout.set_nodes(self.cores[core : core + 1], ends, extra)
        for _, twin in self.vms:
            twin.nodes = nodes

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the memory zeroed for the next world."""
        for hpa in self.world.words:
            self.memory[hpa >> 3] = 0

    def run(self, core: int, vm: int, runs: list[tuple[int, int, int]], cursor: int, budget: int) -> tuple[Any, Any]:
        """Run both on `core` and return their (reason, cursor, cycles, gva and, of a fault, gpa and code)."""
        address, count, kind = (np.array(column) for column in zip(*runs, strict=True))
        registers, twin = self.vms[vm]
        got = vcpu.run(
            self.cores,
            core,
            self.llc,
            registers,
            self.memory,
            address.astype(np.int64),
            count.astype(np.int32),
            kind.astype(np.uint8),
            cursor,
            len(runs),
            budget,
        )
        reason, *ours = (int(value) for value in got)
        name = vcpu.Reason(reason).name
        theirs = twin.run(self.twin_cores[core], runs, cursor, len(runs), budget)
        if name in ("GUEST_FAULT", "VIOLATION"):
            return (name, *ours), (*theirs, twin.gpa, twin.code)
        return (name, *ours[:3]), theirs

    def check(self) -> None:
        """Assert that counters, memory, TLBs and caches are the same on both sides."""
        for registers, twin in self.vms:
            assert counters(registers[0]) == +twin.count
            assert references(registers[0]) == dict(twin.refs)
            assert walk_cache_hits(registers[0]) == dict(twin.pwc)
            assert {Served(n).name: int(v) for n, v in enumerate(registers[0].data_refs) if v} == dict(twin.data)
            assert registers[0].walk_cycles == twin.walk_cycles
            assert registers[0].hidden == twin.hidden
            assert node_references(registers[0]) == dict(twin.node_refs)
            assert peer_references(registers[0]) == dict(twin.peer_refs)
        for number, twin in enumerate(self.twin_cores):
            for name, sets in twin.units():
                assert contents(self.cores[number], name) == expected(name, sets), name
            for name, sets in zip(("l1", "l2"), twin.caches, strict=True):
                assert lines(self.cores[number][name]) == keys(sets), name
        assert lines(self.llc) == keys(self.twin_llc.sets)
        if self.twin_llc.victim and self.llc["notes"].shape[1]:
            kept = sorted(line for core in self.twin_cores for part in keys(core.caches[1]) for line in part if line)
            assert sorted(int(word) - 1 for word in self.llc["notes"].ravel() if word) == kept
        words = self.world.words
        assert {hpa: int(self.words[hpa >> 3]) for hpa in words} == words


def draws(core: Any, name: str) -> Any:
    """Return where the draws of a unit's sets start, in a core that has not run."""
    age = core[name]["age"]
    return age[:, 0].copy() if age.shape[1] else None


# What the machine's records hold, in the twin's words


def counters(vm: Any) -> dict[str, int]:
    return {count.name.lower(): int(vm.counters[count]) for count in layout.Count if vm.counters[count]}


def references(vm: Any) -> dict[tuple[int, int, str], int]:
    return {
        (int(g), int(n), Served(s).name): int(vm.refs[g, n, s]) for g, n, s in zip(*np.nonzero(vm.refs), strict=True)
    }


def node_references(vm: Any) -> dict[tuple[str, int], int]:
    kinds = "walk_guest", "walk_nested", "data"
    return {
        (kinds[k], int(node)): int(vm.node_refs[k, node]) for k, node in zip(*np.nonzero(vm.node_refs), strict=True)
    }


def peer_references(vm: Any) -> dict[str, int]:
    kinds = "walk_guest", "walk_nested", "data"
    return {kinds[k]: int(vm.peer_refs[k]) for k in np.flatnonzero(vm.peer_refs)}


def walk_cache_hits(vm: Any) -> dict[tuple[int, int, bool], int]:
    return {(int(d), int(lv), bool(h)): int(vm.pwc[d, lv, h]) for d, lv, h in zip(*np.nonzero(vm.pwc), strict=True)}


def lines(sets: Any) -> list[list[int]]:
    """Return the lines in each set of a data cache: most recent first, or by way, None where that is empty."""
    stays = sets.dtype["policy"].shape[0] > 0
    return [[int(tag) if tag != -1 else None for tag in each.tag if stays or tag != -1] for each in sets]


def keys(sets: Any) -> list[list[Any]]:
    return [[entry and entry[0] for entry in entries] for entries in sets.contents()]


def _translation(value: int) -> Translation:
    return Translation(
        value & bits.ADDRESS, bool(value & bits.RW), bool(value & bits.US), bool(value & bits.D), value >> 9 & 3
    )


def _read(name: str, tag: int, value: int) -> tuple[Any, Any]:
    asid, key = tag >> tlb.ASID_SHIFT, tag & ((1 << tlb.ASID_SHIFT) - 1)
    if "tlb" in name and name != "ntlb":
        return (asid, key & 3, key >> 2), _translation(value)
    if name == "pwc":
        return (tag & (1 << 46) - 1) << 3 | tag >> 46 << 2, value % 2**64
    if name == "ntlb":
        return (asid, key), _translation(value)
    return (asid, key), Table(
        value & bits.ADDRESS, value & bits.RIGHTS, bool(value & bits.SWITCH), bool(value & SEALED)
    )


def contents(core: Any, name: str) -> list[list[tuple[Any, Any]]]:
    """Return key and value of the entries in each set of a unit: most recent first, or by way, None an empty one."""
    stays = core[name].dtype["policy"].shape[0] > 0
    return [
        [
            _read(name, int(t), int(v)) if t != -1 else None
            for t, v in zip(each.tag, each.value, strict=True)
            if stays or t != -1
        ]
        for each in core[name]
    ]


def keyed_units(core: Any) -> list[list[list[tuple[Any, Any]]]]:
    """Return the contents of every keyed unit of a core."""
    names = [name for name in core.dtype.names if "value" in (core[name].dtype.names or ())]
    return [contents(core, name) for name in names]


def expected(name: str, sets: Any) -> list[list[tuple[Any, Any]]]:
    return [[entry and (entry[0], entry[1]) for entry in entries] for entries in sets.contents()]
