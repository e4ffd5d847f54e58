"""The shapes of a core, the LLC and a vCPU's register file: one numpy record each.

A core is a single record of sets: an argument is one pointer. Where its units are, their sets and ways stand in its
type, and are constants in the machine code that is made for each geometry (vmsim.jit); the header has them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np

from vmsim.machine.formats import TWO_LEVEL, NestedFormat
from vmsim.machine.held import held_words
from vmsim.machine.pwc import PwcStyle
from vmsim.machine.replacement import DUEL_NOTES, ages_of, notes_of
from vmsim.machine.sets import EMPTY, Place, keyed_set, tag_set

__all__ = [
    "CACHES",
    "HEADER",
    "LEVELS",
    "NODES",
    "SERVERS",
    "TABLES",
    "UNITS",
    "VM",
    "WINDOW",
    "Count",
    "Geometry",
    "Keyed",
    "Unit",
    "guest_width",
    "make_cores",
    "make_llc",
    "make_vm",
    "set_nested",
    "set_nodes",
    "set_sockets",
]


class Count(IntEnum):
    """What a VM's counters count."""

    ACCESSES = 0
    WRITES = 1
    L1_TLB_MISSES = 2
    L2_TLB_MISSES = 3
    WALKS = 4  # of the guest's tables, or the host's own where there is one dimension
    NESTED_WALKS = 5
    NTLB_HITS = 6
    NTLB_MISSES = 7
    DIRTY_WALKS = 8  # a write hit a translation that was not dirty (or not writable) and walked again
    AD_UPDATES = 9  # entries whose accessed or dirty flag a walk set
    L2_TLB_CYCLES = 10
    COMPUTE_CYCLES = 11
    DATA_CYCLES = 12


NODES = 16  # of NUMA, at most
WINDOW = 1024  # instructions of an out-of-order window, at most; a power of two
SERVERS = 64  # page walkers of a core, or lines that its L1 waits for, at most
LEVELS = 6  # 0 to 5: the two dimensions' levels, 0 for "not this dimension"


@dataclass(frozen=True)
class Unit:
    """Sets and ways of a TLB, page walk cache or data cache, and what it replaces (`replacement.policy_of`).

    `fold` > 0 XORs a tag's bits from there into the index.
    """

    sets: int = 1
    ways: int = 1
    fold: int = 0
    policy: int = 0


@dataclass(frozen=True)
class Geometry:
    """All that a core's silicon is made of; figures in cycles where not counts.

    `l1_tlb` and `l2_tlb` are up to three arrays, `l1_home` and `l2_home` say which of them keeps pages of 4K, 2M and
    1G (-1: none). `pwc` maps names (pde, pdpte, pml4e, pml5e and nested_ of each; entries) to their units.
    `llc_victim`: the LLC has what leaves the L2, and not what is in it, and knows what other cores' L2s have;
    `peer_extra` is what a line from there takes more than one of the LLC. `llc_inclusive`: what leaves the LLC leaves
    the L1s and L2s of the cores around it. `llc_leaders`: where its sets duel, those that lead for the first policy
    and for the second, counted through the slices. `l2_pairs`: a line that the L2 gets brings its neighbour along.
    `walkers` and `fill_buffers` matter where a window is (window.py), up to SERVERS of each.
    `seed` is of random replacement.
    """

    l1_tlb: Sequence[Unit]
    l2_tlb: Sequence[Unit]
    l1: Unit
    l2: Unit
    llc: Unit
    l1_home: Sequence[int] = (0, 1, 2)
    l2_home: Sequence[int] = (0, 0, -1)
    llc_slices: int = 1
    llc_victim: bool = False
    llc_inclusive: bool = False
    llc_leaders: Sequence[Sequence[int]] = ((), ())
    peer_extra: int = 0
    l2_pairs: bool = False
    latency: Sequence[int] = (0, 0, 0, 0)
    pwc_style: PwcStyle = PwcStyle.PREFIX
    pwc: Mapping[str, Unit] = field(default_factory=dict)
    pwc_lowest: int = 2
    pwc_nested_lowest: int = 2  # LEVELS: keeps no nested entries
    pwc_cycles: int = 0
    ntlb: Unit | None = None
    ntlb_cycles: int = 0
    l2_tlb_cycles: int = 0
    walker_enters: int = 0
    walk_start: int = 0
    ad_cycles: int = 0
    data_caches: bool = False
    walkers: int = 1
    fill_buffers: int = 1
    seed: int = 0


class Keyed(IntEnum):
    """The units of a core that keep values by key; the fields of its record have these names in lower case."""

    L1_TLB0 = 0
    L1_TLB1 = 1
    L1_TLB2 = 2
    L2_TLB0 = 3
    L2_TLB1 = 4
    L2_TLB2 = 5
    PDE = 6
    PDPTE = 7
    PML4E = 8
    PML5E = 9
    NESTED_PDE = 10
    NESTED_PDPTE = 11
    NESTED_PML4E = 12
    NESTED_PML5E = 13
    PWC = 14
    NTLB = 15


CACHES = ("l1", "l2", "llc")  # the units that keep tags alone; the LLC is the cores' in common

# Where those units are, the same type for every geometry: for rare paths, which are compiled once.
UNITS = np.dtype(
    (
        np.record,
        [
            ("sizes", "i8"),  # a bit for each page size that the TLBs have ever held
            ("home", "i8", (2, 3)),  # the unit that keeps pages of each size, in each level of the TLB; -1: none
            ("place", "i8", (len(Keyed) + len(CACHES), len(Place))),
        ],
    )
)

_SETTINGS = (
    "pwc_style",
    "pwc_lowest",
    "pwc_nested_lowest",
    "pwc_cycles",
    "ntlb_cycles",
    "l2_tlb_cycles",
    "walker_enters",
    "walk_start",
    "ad_cycles",
    "data_caches",
    "llc_slices",
    "llc_victim",
    "llc_inclusive",
    "peer_extra",
    "l2_pairs",
    "walkers",
    "fill_buffers",
)
TABLES = 2048  # that a core remembers of each dimension, for lookahead.py alone: (tag, hpa) of each
_NOTHING = Unit(0, 1)
_UNFOLDED = 63
_LINE = 64  # bytes; sets begin where lines of the simulating machine do, or a look at one would load two


# One type object for one geometry: numba's dispatcher compares types by identity first, and by value, which for a
# core takes 10 us, only where that fails.
Shape = tuple[tuple[str, int, int, int], ...]
_llc_set = cache(tag_set)


def _shape(units: Mapping[str, Unit]) -> Shape:
    return tuple((name, unit.sets, unit.ways, unit.policy) for name, unit in units.items())


@cache
def _core_type(keyed: Shape, caches: Shape) -> np.dtype:
    fields: list[tuple] = [("units", UNITS), ("l1_fold", "i8"), ("l2_fold", "i8"), ("latency", "i8", (4,))]
    fields += [("nodes", "i8"), ("node", "i8"), ("node_ends", "i8", (NODES,)), ("node_extra", "i8", (NODES,))]
    fields += [("span", "i8"), ("llc_first", "i8"), ("llc_cores", "i8")]  # words of a core; `set_sockets`
    fields += [("ntlb_entries", "i8"), *((name, "i8") for name in _SETTINGS), ("tables", "i8", (4 * TABLES,))]
    offsets, end = [], 0
    for _, *form in fields:
        offsets.append(end)
        end += np.dtype((*form,) if len(form) > 1 else form[0]).itemsize
    for units, set_type in ((keyed, keyed_set), (caches, tag_set)):
        for name, sets, ways, policy in units:
            end += -end % _LINE
            fields.append((name, set_type(ways, policy), (sets,)))
            offsets.append(end)
            end += sets * set_type(ways, policy).itemsize
    names, formats = [name for name, *_ in fields], [tuple(form) if len(form) > 1 else form[0] for _, *form in fields]
    layout = {"names": names, "formats": formats, "offsets": offsets, "itemsize": end + -end % _LINE}
    return np.dtype((np.record, layout))


HEADER = _core_type((), ())  # what every core has, whatever its units


def _lines(count: int, record: np.dtype) -> np.ndarray:
    """Return zeroed records, shape (count,), from the beginning of a line on."""
    room = np.zeros(count * record.itemsize + _LINE, np.uint8)
    start = -room.ctypes.data % _LINE
    return room[start : start + count * record.itemsize].view(record)


def make_cores(geometry: Geometry, count: int) -> np.ndarray:
    """Return `count` cores with empty TLBs and caches, shape (count,)."""
    keyed = dict.fromkeys((unit.name.lower() for unit in Keyed), _NOTHING)
    for level, units in (("l1", geometry.l1_tlb), ("l2", geometry.l2_tlb)):
        keyed |= {f"{level}_tlb{number}": unit for number, unit in enumerate(units)}
    keyed |= {"pwc" if name == "entries" else name: unit for name, unit in geometry.pwc.items()}
    keyed["ntlb"] = geometry.ntlb or _NOTHING
    caches = {"l1": geometry.l1, "l2": geometry.l2}
    cores = _lines(count, _core_type(_shape(keyed), _shape(caches)))
    place = np.zeros(UNITS["place"].shape, np.int64)
    for row, (name, unit) in zip(place, (keyed | caches | {"llc": geometry.llc}).items(), strict=True):
        offset = cores.dtype.fields[name][1] if name in cores.dtype.names else 0
        notes = _notes(geometry, count) if name == "llc" else 0
        row[:] = offset >> 3, unit.sets, unit.ways if unit.sets else 0, unit.policy, unit.fold or _UNFOLDED, notes
    cores["units"]["place"] = place
    for level, home in enumerate((geometry.l1_home, geometry.l2_home)):
        cores["units"]["home"][:, level] = [number if number < 0 else 3 * level + number for number in home]
    cores["l1_fold"], cores["l2_fold"] = place[[Keyed.L1_TLB0, Keyed.L2_TLB0], Place.FOLD]
    for number, (name, unit) in enumerate((keyed | caches).items()):
        cores[name]["tag"] = EMPTY
        for core in range(count if unit.policy else 0):
            cores[name]["age"][core] = ages_of(unit.policy, unit.sets, unit.ways, (geometry.seed, core, number))
    cores["latency"] = geometry.latency
    cores["ntlb_entries"] = geometry.ntlb.sets * geometry.ntlb.ways if geometry.ntlb else 0
    for name in _SETTINGS:
        cores[name] = int(getattr(geometry, name))
    cores["span"] = cores.dtype.itemsize >> 3
    set_sockets(cores, [0] * count)
    return cores


def set_sockets(cores: np.ndarray, sockets: Sequence[int]) -> None:
    """Tell cores, record[n], which of them share an LLC: those of a socket, which follow one another."""
    for number, socket in enumerate(sockets):
        cores[number]["llc_first"] = sockets.index(socket) - number  # the first of them, counted from this one
        cores[number]["llc_cores"] = sockets.count(socket)


def set_nodes(cores: np.ndarray, ends: Sequence[int] | np.ndarray, extra: Sequence[int], node: int = 0) -> None:
    """Tell cores, record[n], of NUMA nodes; without them all memory is alike.

    Parameters
    ----------
    cores : record[n]
        From `make_cores`.
    ends : sequence of int
        The first hpas after the memory of each node.
    extra : sequence of int
        The cycles that DRAM there takes more than `Geometry.latency` says, less if negative.
    node : int, optional
        The one that they are of.
    """
    cores["nodes"], cores["node"] = len(ends), node
    cores["node_ends"][:, : len(ends)] = ends
    cores["node_extra"][:, : len(ends)] = extra


def _notes(geometry: Geometry, cores: int) -> int:
    """Return the words of a set of the LLC for its part in a duel, or for what the L2s of `cores` cores hold."""
    if any(geometry.llc_leaders):
        return DUEL_NOTES
    if not geometry.llc_victim:
        return 0
    return held_words(cores, geometry.l2.sets, geometry.l2.ways, geometry.llc.sets // geometry.llc_slices)


def make_llc(geometry: Geometry, cores: int = 1) -> np.ndarray:
    """Return the empty last-level cache that `cores` cores share, shape (sets,)."""
    unit = geometry.llc
    llc = _lines(unit.sets, _llc_set(unit.ways, unit.policy, _notes(geometry, cores)))
    llc["tag"] = EMPTY
    if unit.policy:
        llc["age"] = ages_of(unit.policy, unit.sets, unit.ways, (geometry.seed,))
    if any(geometry.llc_leaders):
        llc["notes"] = notes_of(unit.sets, geometry.llc_leaders, (geometry.seed,))
    return llc


_REGISTERS = [
    ("asid", "i8"),  # of the address space (VPID and PCID, or ASID), shifted by tlb.ASID_SHIFT
    ("apart", "i8"),  # at CPL 0: what, added to asid, gives that of the kernel's pages in the TLBs; 0: CPL 3
    ("nested_asid", "i8"),  # of the nested tables (EP4TA), shifted likewise
    ("cr3", "i8"),  # gpa of the root table (hpa where there is one dimension)
    ("levels", "i8"),  # that a walk goes through: 2 (32-bit; PAE, see pdpte), 3 (PAE), 4, 5
    ("largest", "i8"),  # level above which no entry maps a page: 3, or 2 where there are no pages of 1 GiB
    ("pdpte", "i8", (4,)),  # PAE with 2 levels: what the last load of CR3 read (SDM vol. 3A §5.4.1)
    ("switch", "i8"),  # agile paging: the bit of an entry (or of cr3) after which the walk goes on nested
    ("nested_root", "i8"),  # hpa: EPTP or nCR3
    ("nested_levels", "i8"),  # 0: one dimension
    ("nested_present", "i8"),
    ("nested_needed", "i8"),
    ("nested_accessed", "i8"),
    ("nested_dirty", "i8"),
    ("table_writes", "i8"),  # walks of guest tables count as writes (EPT with A/D flags, NPT)
    ("pml", "i8"),  # 1: note the gpa of each nested entry whose dirty flag is set (SDM vol. 3C §30.3.6)
    ("pml_index", "i8"),  # of the entry to be filled next, downwards; -1: the log is full
    ("pml_log", "i8", (512,)),  # gpas of pages
    ("compute", "i8"),  # cycles of other work per access
    ("llc_ways", "i8"),  # a mask of the ways of the LLC that it may fill, where the LLC is shared out
    ("from_peer", "i8"),  # 1: the last reference was served by another core's L2, and is not counted yet
    ("ahead", "i8"),  # the first access of a run that lookahead.py has not looked at
    ("in_flight", "i8"),  # accesses that are in the window at once (window.py); 0: one after the other
    ("drained", "i8"),  # 1: all of them are finished before the next
    ("entered", "i8"),  # the number of the next to enter it
    ("dispatched", "i8"),  # when the last one was
    ("retired", "i8"),  # when it and all before were
    ("waits_from", "i8"),  # of `waiting`, modulo WINDOW, the first that is still of interest
    ("waits_to", "i8"),  # and the first that is not yet
    ("hidden", "i8"),  # cycles that went on at the same time as others
    ("walker_free", "i8", (SERVERS,)),  # when each is
    ("buffer_free", "i8", (SERVERS,)),
    ("waiting", "i8", (WINDOW, 2)),  # number of the first access of a run, when it retired
    ("walk_cycles", "i8"),
    ("fault_gpa", "i8"),
    ("fault_code", "i8"),
    ("logging", "i8"),  # 1: note each walk reference in the log
    ("logged", "i8"),
    ("log", "i8", (64, 3)),  # hpa, guest level << 8 | nested level, Served
    ("counters", "i8", (len(Count),)),
    ("refs", "i8", (LEVELS, LEVELS, 5)),  # guest level, nested level, Served
    ("pwc", "i8", (2, LEVELS, 2)),  # dimension, level, hit
    ("data_refs", "i8", (4,)),  # data references by Served
    ("node_refs", "i8", (3, NODES)),  # served by DRAM: of the guest's dimension, of the nested one, data; by node
    ("node_cycles", "i8", (3,)),  # that those took more than the latency of DRAM
    ("peer_refs", "i8", (3,)),  # served by other cores' L2s, which are counted as the LLC's; likewise
    ("peer_cycles", "i8", (3,)),  # that those took more than the latency of the LLC
]


def _registers(two_level: int) -> np.dtype:
    """Return the type of a VM's registers; it tells code, as it is compiled, whether entries may have 4 bytes."""
    return np.dtype((np.record, [*_REGISTERS, ("two_level", "i8", (two_level,))]))


VM = _registers(0)
_VM_TWO_LEVEL = _registers(1)


def make_vm(levels: int = 4, vcpus: int = 1) -> np.ndarray:
    """Return a VM's zeroed registers and counters, a record for each vCPU, for tables of so many levels.

    It has pages of 1 GiB. What is the VM's, as the root of its nested tables, is the same in all of the records.
    """
    vms = np.zeros(vcpus, _VM_TWO_LEVEL if levels == TWO_LEVEL else VM)
    vms["largest"] = 3
    vms["llc_ways"] = -1
    return vms


def guest_width(registers: np.ndarray) -> int:
    """Return how many bits of a gva each of the guest's tables translates, 9 or 10, by the VM's registers."""
    return 9 + int(registers.dtype["two_level"].shape[0])


def set_nested(registers: Any, form: NestedFormat, levels: int, root: int = 0) -> None:
    """Give a VM nested tables: their format, depth and, where it is known, root (hpa).

    Parameters
    ----------
    registers : record[n]
        From `make_vm`.
    """
    registers["nested_levels"] = levels
    registers["nested_root"] = root
    registers["nested_present"] = form.present
    registers["nested_needed"] = form.needed
    registers["nested_accessed"] = form.accessed
    registers["nested_dirty"] = form.dirty
    registers["table_writes"] = form.dirty != 0
