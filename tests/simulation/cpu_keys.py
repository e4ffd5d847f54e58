"""For every key of a CPU but for its costs: a small scenario in which it matters, and two values that differ there.

Run as a program with keys as arguments, it prints what `effect` says of each: in a process without compilation, where a
geometry of its own costs nothing.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from tests.simulation.cost_keys import SMP, TOGETHER, of_cpu
from tests.simulation.key_worlds import CHURN, LARGE, LOG, MANY, SEQUENTIAL, SWITCHER, UNIFORM, Row, vm, world
from tests.simulation.keys import effect

_ON = {"cpu": "skylake-x", "what_if": False}
_AMD = world(vm("npt", LARGE, memory="16MiB"), cpu="zen4")
_INTEL = world(vm("ept", LARGE, memory="16MiB"), **_ON)
_FIVE = world(vm("ept", LARGE, memory="16MiB", guest_levels=5, host_levels=5), cpu="skylake-x")
_HUGE = world(vm("native", LARGE, memory="16MiB", guest_page="2M"), **_ON)
_AUTO = world(vm("auto", CHURN), **_ON)
_AUTO_AMD = world(vm("auto", CHURN), cpu="zen4", what_if=False)
_REGION = {**UNIFORM, "footprint": "1GiB"}
_GIGA = world(vm("native", _REGION, memory="2GiB", guest_page="1G"), **_ON | {"memory": "4GiB"})
_GIGA_HOST = world(vm("ept", LARGE, memory="2GiB", host_page="1G"), **_ON | {"memory": "4GiB"})
_TLB = world(vm("native", {**SEQUENTIAL, "accesses": 1024, "footprint": "512KiB"}), **_ON)
_SMALL_TLB = {"tlb": {"l1": {"4K": {"entries": 4, "ways": 4}}, "l2": {"4K": {"entries": 48, "ways": 12}}}}
_TLB2 = world(vm("native"), **_ON | {"cpu_override": _SMALL_TLB})
_ENTRY_PWC = {
    **{"style": "entry", "entries": 16, "ways": 4, "cycles": 3, "nested": True, "lowest": 1, "nested_lowest": 1},
}
_SMALL_CACHES = {"l1": {"size": "8KiB"}, "l2": {"size": "16KiB", "ways": 4}, "llc": {"size": "55KiB"}}
_LINES = {**UNIFORM, "footprint": "128KiB", "accesses": 3000}
_CACHED = world(vm("native", _LINES), **_ON | {"data_caches": True, "cpu_override": {"cache": _SMALL_CACHES}})
_VICTIMS = {**_SMALL_CACHES, "llc": {**_SMALL_CACHES["llc"], "filled": "victims"}}
_DUELLING = {
    **_SMALL_CACHES["llc"],
    "replacement": "QLRU_H11_M1_R1_U2/QLRU_H11_MR161_R1_U2",
    "leaders": ["0-39", "40-79"],
}
_DUEL = world(
    vm("native", _LINES),
    **_ON | {"data_caches": True, "cpu_override": {"cache": {**_SMALL_CACHES, "llc": _DUELLING}}},
)
_SHARED = world(
    vm("native", {**_LINES, "threads": 2}, vcpus=2),
    **_ON | {"data_caches": True, "cores": 2, "cpu_override": {"cache": _VICTIMS}},
)
_AHEAD = world(
    vm("ept", {**_LINES, "footprint": "8MiB"}, memory="16MiB"), **_ON | {"data_caches": True, "overlap": True}
)
_SPREAD = {"kind": "sequential", "footprint": "3GiB", "stride": "520MiB", "accesses": 200}

_PAGES_2M = world(
    vm("native", {**UNIFORM, "footprint": "256MiB"}, memory="512MiB", guest_page="2M"), cpu="skylake-x", memory="1GiB"
)
_NATIVE = world(vm("native"), cpu="skylake-x")
_FAR = {"kind": "sequential", "footprint": "6GiB", "stride": "1GiB", "accesses": 60}
_PAGES_1G = world(vm("native", _FAR, memory="8GiB", guest_page="1G"), cpu="skylake-x", memory="16GiB")
_EVEN = {**_FAR, "footprint": "12GiB", "stride": "2GiB"}
_EVEN_1G = world(vm("native", _EVEN, memory="13GiB", guest_page="1G"), cpu="skylake-x", memory="16GiB")
_NO_PWC = {
    f"{nested}{level}": {"entries": 0, "ways": 0}
    for nested in ("", "nested_")
    for level in ("pml5e", "pml4e", "pdpte", "pde")
}
_BARE = world(vm("ept", LARGE, memory="16MiB"), cpu="skylake-x", cpu_override={"pwc": _NO_PWC})
_BARE_5 = world(
    vm("ept", LARGE, memory="16MiB", guest_levels=5, host_levels=5), cpu="skylake-x", cpu_override={"pwc": _NO_PWC}
)

# Several of each prefix: of many address spaces, and of many VMs.
_FEW = {"pwc": _NO_PWC, "tlb": {"l1": {"4K": {"entries": 4}}, "l2": {"4K": {"entries": 12}}}}
_DEEP = {"memory": "16MiB", "guest_levels": 5, "host_levels": 5}
_SPACES = world(vm("ept", {**SWITCHER, "spaces": 3, "accesses": 1200}, **_DEEP), cpu="skylake-x", cpu_override=_FEW)
_VMS = world(*[vm("ept", LARGE, **_DEEP)] * 4, cpu="skylake-x", cpu_override=_FEW, quantum="10us", memory="128MiB")


def _array(entries: int, ways: int) -> dict[str, int]:
    return {"entries": entries, "ways": ways}


def _geometry() -> dict[str, Row]:
    """Return the rows of arrays, of which entries and ways are set together where they must fit."""

    def row(tables: dict[str, Any], one: Any, other: Any, key: str) -> tuple[str, Row]:
        return key, of_cpu(tables, one, other, key)

    def both(key: str, tables: dict[str, Any], one: dict[str, int], other: dict[str, int]) -> dict[str, Row]:
        made = of_cpu(tables, one, other, key)
        return {f"{key}.entries": made, f"{key}.ways": made}

    rows = dict(
        [
            row(_NATIVE, 64, 32, "tlb.l1.4K.entries"),
            row(_STRIDE, 4, 64, "tlb.l1.4K.ways"),
            row(_STRIDE, "modulo", "xor", "tlb.l1.4K.index"),
            row(_TLB, None, "2M", "tlb.l1.4K.shared"),
            row(_PAGES_2M, 32, 8, "tlb.l1.2M.entries"),
            row(_PAGES_2M, 4, 32, "tlb.l1.2M.ways"),
            row(_PAGES_2M, "modulo", "xor", "tlb.l1.2M.index"),
            row(_PAGES_2M, None, "4K", "tlb.l1.2M.shared"),
            row(_PAGES_1G, None, "4K", "tlb.l1.1G.shared"),
            row(_TLB2, 48, 24, "tlb.l2.4K.entries"),
            row(_TLB2, 12, 24, "tlb.l2.4K.ways"),
            row(_TLB2, "modulo", "xor", "tlb.l2.4K.index"),
            row(_TLB2, None, "2M", "tlb.l2.4K.shared"),
            row(_PAGES_2M, "4K", "1G", "tlb.l2.2M.shared"),
            row(_PAGES_1G, None, "4K", "tlb.l2.1G.shared"),
            row(_INTEL, "prefix", "entry", "pwc.style"),
            row(_AMD, 2, 9, "pwc.cycles"),
            row(_AMD, True, False, "pwc.nested"),
            row(_AMD, 2, 3, "pwc.lowest"),
            row(_AMD, 2, 3, "pwc.nested_lowest"),
            *(row(_CACHED, f"{old}KiB", f"{new}KiB", f"cache.{level}.size") for level, old, new in _SIZES),
            *(row(_CACHED, old, new, f"cache.{level}.ways") for level, old, new in _WAYS),
            row(_CACHED, 1, 2, "cache.l1.slices"),
            row(_CACHED, 1, 2, "cache.l2.slices"),
            row(_CACHED, 10, 5, "cache.llc.slices"),
            row(_CACHED, "misses", "victims", "cache.llc.filled"),
            row(_SHARED, 60, 90, "cache.llc.peer_cycles"),
            row(_CACHED, False, True, "cache.llc.inclusive"),
            row(_DUEL, ["0-39", "40-79"], ["40-79", "0-39"], "cache.llc.leaders"),
            row(_CACHED, False, True, "cache.l2.pairs"),
            *(row(_CACHED, "lru", "random", f"cache.{level}.replacement") for level in ("l1", "l2", "llc")),
            row(_TLB2, "lru", "random", "tlb.l1.4K.replacement"),
            row(_PAGES_2M, "lru", "random", "tlb.l1.2M.replacement"),
            row(_TLB2, "lru", "random", "tlb.l2.4K.replacement"),
        ]
    )
    for level in ("l1", "l2"):
        one = _array(4, 4) | {"replacement": "lru"}
        rows[f"tlb.{level}.1G.replacement"] = of_cpu(_PAGES_1G, one, one | {"replacement": "random"}, f"tlb.{level}.1G")
    rows["tlb.l2.2M.replacement"] = of_cpu(
        _K10, _array(64, 4) | {"replacement": "lru"}, _array(64, 4) | {"replacement": "random"}, "tlb.l2.2M"
    )
    levels = ("pml5e", "pml4e", "pdpte", "pde")
    for key, tables, size in (
        *((f"pwc.{level}", _SPACES, 2) for level in levels),
        *((f"pwc.nested_{level}", _VMS, 2) for level in levels),
        ("pwc", _AMD, 4),
        ("ntlb", _AMD, 4),
    ):
        one = _array(size, size) | {"replacement": "lru"}
        rows[f"{key}.replacement"] = of_cpu(tables, one, one | {"replacement": "random"}, key)
    rows |= both("tlb.l1.1G", _PAGES_1G, _array(4, 4), _array(8, 8))
    rows |= both("tlb.l2.1G", _PAGES_1G, _array(16, 4), _array(2, 2))
    for key in ("tlb.l2.2M.entries", "tlb.l2.2M.ways", "tlb.l2.2M.index"):
        rows[key] = of_cpu(_K10, _array(128, 2), _array(8, 2) | {"index": "xor"}, "tlb.l2.2M")
    for level in ("l1", "l2"):
        one = _array(4, 1) | {"index": "modulo"}
        rows[f"tlb.{level}.1G.index"] = of_cpu(_EVEN_1G, one, one | {"index": "xor"}, f"tlb.{level}.1G")
    for level in ("pml4e", "pdpte", "pde"):
        for nested in ("", "nested_"):
            rows |= both(f"pwc.{nested}{level}", _BARE, _array(0, 0), _array(2, 2))
    for nested in ("", "nested_"):
        rows |= both(f"pwc.{nested}pml5e", _BARE_5, _array(0, 0), _array(2, 2))
    rows |= both("pwc", _AMD, _array(64, 64), _array(4, 4))
    return rows | both("ntlb", _AMD, _array(16, 16), _array(0, 0))


_SIZES = (("l1", 32, 16), ("l2", 16, 32), ("llc", 55, 110))
_WAYS = (("l1", 8, 1), ("l2", 4, 1), ("llc", 11, 22))
_STRIDE = world(
    vm("native", {**SEQUENTIAL, "footprint": "2MiB", "stride": "64KiB", "accesses": 200}, memory="4MiB"),
    cpu="skylake-x",
)
_K10 = world(
    vm("native", {**UNIFORM, "footprint": "256MiB"}, memory="512MiB", guest_page="2M"), cpu="k10", memory="1GiB"
)

CPU_ROWS: Final[dict[str, Row]] = {
    **_geometry(),
    "vendor": of_cpu(world(vm(tags="vpid"), **_ON), "intel", "amd", "vendor"),
    "frequency": of_cpu(world(vm(), vm(), quantum="10us"), "2GHz", "3GHz", "frequency"),
    "modes": of_cpu(world(**_ON), ["native", "ept"], ["native"], "modes"),
    "levels": of_cpu(world(vm("npt", guest_levels=5), cpu="zen4", what_if=False), [4, 5], [4], "levels"),
    "cpuid.leaf_1_ecx": of_cpu(_AUTO, 1 << 5, 0, "cpuid.leaf_1_ecx"),
    "cpuid.leaf_80000001_ecx": of_cpu(_AUTO_AMD, 1 << 2, 0, "cpuid.leaf_80000001_ecx"),
    "cpuid.leaf_80000001_edx": of_cpu(_GIGA, 1 << 29 | 1 << 26, 1 << 29, "cpuid.leaf_80000001_edx"),
    "cpuid.leaf_8000000a_edx": of_cpu(_AUTO_AMD, 1, 0, "cpuid.leaf_8000000a_edx"),
    "cpuid.msr_48b": of_cpu(_AUTO, 1 << 33 | 1 << 37, 0, "cpuid.msr_48b"),
    "cpuid.msr_48c": of_cpu(_GIGA_HOST, 1 << 6 | 1 << 17 | 1 << 21, 1 << 6 | 1 << 21, "cpuid.msr_48c"),
    "ept_ad": of_cpu(world(vm(dirty_log=LOG | {"method": "ad-scan"}), **_ON), True, False, "ept_ad"),
    "walk_start": of_cpu(world(), 0, 9, "walk_start"),
    "walkers": of_cpu(_AHEAD, 1, 2, "walkers"),
    "window": of_cpu(_AHEAD, 224, 8, "window"),
    "fill_buffers": of_cpu(_AHEAD, 12, 1, "fill_buffers"),
    "interrupts": of_cpu(SMP, "exit", "virtual", "interrupts"),
    "invlpgb": of_cpu(world(vm("native", TOGETHER, vcpus=4), cores=4), False, True, "invlpgb"),
    "tlb.l2_cycles": of_cpu(world(), 7, 9, "tlb.l2_cycles"),
    "tlb.tags": of_cpu(world(vm("ept", MANY), vm("ept", MANY), quantum="10us"), 65535, 1, "tlb.tags"),
    "ntlb.cycles": of_cpu(world(vm("npt"), cpu="zen4"), 1, 9, "ntlb.cycles"),
    "memory.cycles": of_cpu(world(), 200, 300, "memory.cycles"),
    "cache.l1.cycles": of_cpu(_CACHED, 4, 5, "cache.l1.cycles"),
    "cache.l2.cycles": of_cpu(_CACHED, 12, 13, "cache.l2.cycles"),
    "cache.llc.cycles": of_cpu(_CACHED, 50, 60, "cache.llc.cycles"),
    "cache.walker": of_cpu(_INTEL, "l1", "l2", "cache.walker"),
}

# What no run reads, and why it is a key all the same.
TOLD: Final[dict[str, str]] = {
    "name": "named in messages and by `vmsim cpus`",
    "description": "printed by `vmsim cpus`",
    "cpuid.leaf_7_ecx": "read by `vmsim cpus --detect`: 5-level paging of a preset is its `levels`",
    "cpuid.leaf_8000000a_ebx": "read by `vmsim cpus --detect`: what a preset tells apart is its `tlb.tags`",
    "cache.l1.line": "64 is its only value",
    "cache.l2.line": "64 is its only value",
    "cache.llc.line": "64 is its only value",
}

COMPILED: Final = tuple(key for key in CPU_ROWS if ".1G." in key or key in ("cpuid.leaf_80000001_edx", "cpuid.msr_48c"))
"""Rows with pages of 1 GiB, too large for a process without compilation."""


if __name__ == "__main__":
    print(json.dumps({key: effect(CPU_ROWS[key], key) for key in sys.argv[1:]}))
