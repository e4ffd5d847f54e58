"""The machine of a scenario: its CPU file turned into geometry, its memory, cores and caches made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.machine.flush import places_of
from vmsim.machine.layout import LEVELS, Geometry, Unit, make_cores, make_llc, set_nodes, set_sockets
from vmsim.machine.memory import physical_memory
from vmsim.machine.pwc import PwcStyle
from vmsim.machine.replacement import policy_of
from vmsim.scenario.cpu import Array, CacheLevel, Cpu, EntryPwc, PrefixPwc, TlbLevel
from vmsim.scenario.nodes import Node, latencies

__all__ = ["Hardware", "geometry_of"]

_SIZES = ("4K", "2M", "1G")
_PREFIX_CACHES = ("pde", "pdpte", "pml4e", "pml5e", "nested_pde", "nested_pdpte", "nested_pml4e", "nested_pml5e")


def _unit(array: Array) -> Unit:
    fold = array.sets.bit_length() - 1 if getattr(array, "index", "modulo") == "xor" else 0
    return Unit(array.sets, array.ways, fold, policy_of(array.replacement))


def _cache(cache: CacheLevel, *, by_way: bool = False) -> Unit:
    return Unit(cache.sets * cache.slices, cache.ways, 0, policy_of(cache.replacement, by_way=by_way))


def _tlb(level: TlbLevel) -> tuple[list[Unit], list[int]]:
    """Return the arrays of a TLB level, that of 4 KiB pages first, and which of them each page size lives in."""
    arrays = {size: level[size] for size in _SIZES}  # type: ignore[index]
    owners = [size for size, array in arrays.items() if array and array.shared is None]
    homes = [owners.index(array.shared or size) if array else -1 for size, array in arrays.items()]
    return [_unit(array) for size in owners if (array := arrays[size])], homes


def geometry_of(cpu: Cpu, *, data_caches: bool = False, llc_shared: bool = False, seed: int = 0) -> Geometry:
    """Return what a core of `cpu` is made of.

    Parameters
    ----------
    cpu : Cpu
        A preset or CPU file.
    data_caches : bool, optional
        Data accesses go through the caches too.
    llc_shared : bool, optional
        VMs may fill some ways of the LLC each.
    seed : int, optional
        Of random replacement.
    """
    l1_tlb, l1_home = _tlb(cpu.tlb.l1)
    l2_tlb, l2_home = _tlb(cpu.tlb.l2)
    style, pwc, lowest, nested_lowest, pwc_cycles = PwcStyle.NONE, {}, 2, 2, 0
    if isinstance(cpu.pwc, PrefixPwc):
        style = PwcStyle.PREFIX
        pwc = {name: _unit(array) for name in _PREFIX_CACHES if (array := getattr(cpu.pwc, name)).entries}
    elif isinstance(cpu.pwc, EntryPwc) and cpu.pwc.entries:
        style = PwcStyle.ENTRY
        pwc = {"entries": _unit(cpu.pwc)}
        lowest, pwc_cycles = cpu.pwc.lowest, cpu.pwc.cycles
        nested_lowest = cpu.pwc.nested_lowest if cpu.pwc.nested else LEVELS
    return Geometry(
        l1_tlb=l1_tlb,
        l2_tlb=l2_tlb,
        l1_home=l1_home,
        l2_home=l2_home,
        l1=_cache(cpu.cache.l1),
        l2=_cache(cpu.cache.l2),
        llc=_cache(cpu.cache.llc, by_way=llc_shared),
        llc_slices=cpu.cache.llc.slices,
        l2_pairs=cpu.cache.l2.pairs,
        llc_victim=cpu.cache.llc.filled == "victims",
        llc_leaders=cpu.cache.llc.leading,
        llc_inclusive=cpu.cache.llc.inclusive,
        peer_extra=(cpu.cache.llc.peer_cycles or cpu.cache.llc.cycles) - cpu.cache.llc.cycles,
        latency=(cpu.cache.l1.cycles, cpu.cache.l2.cycles, cpu.cache.llc.cycles, cpu.memory.cycles),
        pwc_style=style,
        pwc=pwc,
        pwc_lowest=lowest,
        pwc_nested_lowest=nested_lowest,
        pwc_cycles=pwc_cycles,
        ntlb=_unit(cpu.ntlb) if cpu.ntlb.entries else None,
        ntlb_cycles=cpu.ntlb.cycles,
        l2_tlb_cycles=cpu.tlb.l2_cycles,
        walker_enters=0 if cpu.cache.walker == "l1" else 1,
        walk_start=cpu.walk_start,
        ad_cycles=cpu.cost.ad_assist,
        data_caches=data_caches,
        walkers=cpu.walkers,
        fill_buffers=cpu.fill_buffers,
        seed=seed,
    )


@dataclass(frozen=True)
class Hardware:
    """Cores with their TLBs and caches, the LLC they share, and memory.

    Where there are several sockets, `others` are the LLCs of those after the first, and `sockets` says for each core
    in which it is.
    """

    cores: NDArray[Any]
    llc: NDArray[Any]
    memory: NDArray[np.int64]
    others: tuple[NDArray[Any], ...] = ()
    sockets: tuple[int, ...] = ()

    def llc_of(self, core: int) -> NDArray[Any]:
        """Return the LLC that a core shares with others."""
        socket = self.sockets[core] if self.sockets else 0
        return self.others[socket - 1] if socket else self.llc

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Where the units of a core are in its words (`vmsim.machine.flush.places_of`)."""
        return places_of(self.cores[:1])

    @classmethod
    def of(
        cls,
        cpu: Cpu,
        *,
        cores: int,
        frames: int,
        data_caches: bool = False,
        llc_shared: bool = False,
        seed: int = 0,
        nodes: Sequence[Node] = (),
        remote_cycles: int = 0,
        distances: Sequence[Sequence[int]] = (),
        copies: int = 0,
    ) -> Hardware:
        """Make the hardware of a host with `cores` pCPUs and `frames` 4 KiB frames of memory, in nodes or not.

        Tables of so many VMs may have `copies`.
        """
        geometry = geometry_of(cpu, data_caches=data_caches, llc_shared=llc_shared, seed=seed)
        made = make_cores(geometry, cores)
        sockets = tuple(number for number, node in enumerate(nodes) for _ in range(node.cpus))
        if sockets:
            set_sockets(made, sockets)
        ends = np.cumsum([node.memory for node in nodes], dtype=np.int64)
        loads = latencies(nodes, cpu.memory.cycles, remote_cycles, distances)
        for core, node in enumerate(sockets):
            set_nodes(made[core : core + 1], ends, [cycles - cpu.memory.cycles for cycles in loads[node]], node)
        others = tuple(make_llc(geometry, cores) for _ in set(sockets) - {0})
        return cls(made, make_llc(geometry, cores), physical_memory(frames, len(nodes), copies), others, sockets)
