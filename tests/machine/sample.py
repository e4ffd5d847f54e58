"""A small run of every kernel, its results as JSON: for comparing caches, hash seeds and the JIT switched off.

`python -m tests.machine.sample` prints {"way" of compiling, "results": digest, "length": of what it digests} and, where
the JIT is on, "kernels": {name: signatures}, how many were "loaded" from the cache and "compiled", and with --ir the
names of those whose compiled code has reference "counted". With --walks it makes the runs of vCPUs alone, with --hosts
those of whole hosts besides, whose kernels are many.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import vmsim
from tests.machine.drawn_tables import make_world
from tests.machine.geometries import PREFIX
from tests.machine.sample_hosts import hosts
from tests.machine.worlds import Pair, counters, keyed_units, memory, references
from tests.monitor.agile_world import AgileWorld
from tests.monitor.vkernel_world import World as VkernelWorld
from tests.monitor.world import World, figures_of
from tests.simulation.small import digest, scenario, vm
from vmsim.contracts import SecondMmu
from vmsim.engine.hardware import Hardware
from vmsim.engine.simulation import Simulation
from vmsim.frames import buddy, reported
from vmsim.frames.records import State
from vmsim.guest.demand import give_back
from vmsim.guest.regions import Regions
from vmsim.jit import WAY, jitted_sources
from vmsim.machine import vcpu
from vmsim.machine.flush import flush_asid, invalidate_page
from vmsim.machine.formats import EPT
from vmsim.machine.layout import make_cores, make_llc, make_vm
from vmsim.machine.memory import clear_frame, find_entry, physical_memory
from vmsim.monitor.paired.mirror import store_mirrored
from vmsim.monitor.shadow.mode import SHADOW_PRESETS, ShadowSpec
from vmsim.tables import copies, dirty, listing, ranges
from vmsim.tables import edit as tables
from vmsim.tables.backing import IDENTITY, break_up, count_leaves, fill_backing, host_address, make_backing, set_backing

PACKAGE = Path(vmsim.__file__).parent


def runs() -> list[Any]:
    """Run streams in every mode on two kinds of core."""
    out = []
    for seed, (mode, geometry) in enumerate(
        [("native", PREFIX), ("npt", PREFIX), ("ept", PREFIX), ("ept-ad", PREFIX), ("native", PREFIX)]
    ):
        with Pair(make_world(seed, mode, 4, 4, [1, 2], [1, 2], 0.1), geometry) as pair:
            random = Random(seed)
            stream = [(random.choice(pair.world.pages), random.randint(1, 3), seed % 2) for _ in range(60)]
            cursor = 0
            while cursor < len(stream):
                ours, theirs = pair.run(0, 0, stream, cursor, 5000)
                assert ours == theirs
                out.append(ours)
                cursor = ours[1] + (ours[0] not in ("DONE", "BUDGET"))
            registers = pair.vms[0][0][0]
            out.append([counters(registers), sorted(references(registers).items())])
            invalidate_page(pair.cores, registers.asid, pair.world.pages[0], 0)
            invalidate_page(pair.cores, registers.asid, pair.world.pages[0], 9)
            out.append(keyed_units(pair.cores[0]))
            flush_asid(pair.cores, registers.asid)
            out.append(keyed_units(pair.cores[0]))
    return out


def edits() -> list[Any]:
    """Allocate, map, populate, unmap, free."""
    there, form = memory(), EPT(ad_bits=True)
    zone, frames = buddy.make_zone(1024)
    root = int(buddy.allocate(zone, frames, 0, State.TABLE, 0)) << 12
    clear_frame(there, root)
    some, links = np.zeros(20, np.int64), np.zeros(8, np.int64)
    buddy.allocate_many(zone, frames, 0, State.GUEST, 1, some)
    buddy.allocate_many(zone, frames, 0, State.TABLE, 1, links)
    buddy.use(frames, some[:1], State.POOL)
    buddy.hand_over(zone, frames, some[1:2], 2, State.POOL)
    used = tables.map_pages(there, frames, root, 4, 1, IDENTITY, 0x1F_C000, some[:10], links, form.table, form.page)
    found = [
        int(used),
        tables.map_page(there, frames, root, 4, 1, IDENTITY, 0x1000, some[10], form.page),
        tables.missing_tables(there, root, 4, 1, IDENTITY, 1 << 39),
        tables.translate(there, root, 4, 0x1F_D123),
        *find_entry(there, root, 4, 1, 0x1F_D000),
        tables.populate(
            there,
            zone,
            frames,
            1,
            root,
            4,
            1,
            IDENTITY,
            1 << 30,
            (1 << 30) + 0x6000,
            form.table,
            form.page,
            links,
            some[:1],
        ),
    ]
    backing = make_backing(1 << 18)
    fill_backing(there, backing, frames, root, 4)
    set_backing(backing, frames, 1 << 9, 1 << 9, 9)
    break_up(backing, 3 << 8)
    found.append(count_leaves(backing, 0, len(backing)))
    found += [*backing[510:514].tolist()]
    found += [host_address(backing, gpa) for gpa in (0x1F_D123, 0x1000, 0x5000)]
    lists = [np.zeros(600, np.int64) for _ in range(4)]
    found += [*listing.scan_entries(there, root, 4, IDENTITY, 0, 0, 0x20_0000, False, *lists), *lists[1][:30].tolist()]
    found += [listing.walk_entries(there, root, 4, 1, IDENTITY, 0x1000, *lists[:2]), *lists[1][:5].tolist()]
    found += [listing.list_tables(there, root, 4, IDENTITY, 1 << 48, *lists[:2]), *lists[1][:5].tolist()]
    found += copied(there, zone, frames, root, some)
    short = int(buddy.allocate(zone, frames, 0, State.TABLE, 1)) << 12
    clear_frame(there, short)
    tables.map_pages(there, frames, short, 2, 1, IDENTITY, 0x3F_D000, some[:6], links[3:5], form.table, form.page)
    tables.store_entries(there, IDENTITY, np.array([short + 4 * 1023]), np.array([0xFFC0_0087]), 10)
    lists = [np.zeros(1100, np.int64) for _ in range(4)]
    found += [*listing.scan_entries(there, short, 2, IDENTITY, 0, 0, 1 << 32, False, *lists), *lists[1][:9].tolist()]
    found += [tables.translate(there, short, 2, gpa) for gpa in (0x40_0123, 0xFFFF_FFFF)]
    tables.load_entries(there, IDENTITY, lists[0][:3], lists[1][:3], 9)
    tables.store_entries(there, IDENTITY, lists[0][:3], lists[1][:3] | 1 << 52, 9)
    found += [*lists[1][:3].tolist(), *there[lists[0][:3] >> 3].tolist()]
    buddy.free(zone, frames, some[12], 0)
    buddy.free_many(zone, frames, 0, some[13:15])
    firsts, orders = np.zeros(4, np.int64), np.full(4, 3)
    for mobility in range(2):
        count = reported.isolate(zone, frames, 3, mobility, 1, 10, firsts)
        found += [count, *firsts[:count].tolist(), reported.any_unreported(zone, frames, 3, np.zeros(1, np.int64))]
        reported.put_back(zone, frames, firsts[:count], orders[:count])
    found += [reported.count_listed(zone, frames, 0), *zone[0].tails.ravel().tolist(), *frames["owner"].tolist()]
    found += [buddy.free_owned(zone, frames, 1), zone[0].free, *frames["block"].tolist(), *zone[0].owned[:4].tolist()]
    there[: 1024 << 9] = 0
    return [int(value) for value in found]


def copied(there: Any, zone: Any, frames: Any, root: int, some: Any) -> list[Any]:
    """List the entries of some pages, share these with another space, and take them from the first."""
    columns, more = np.zeros((4, 1100), np.int64), np.zeros(len(frames), np.int32)
    child = int(buddy.allocate(zone, frames, 0, State.TABLE, 1)) << 12
    clear_frame(there, child)
    stop, count = listing.take_pages(there, root, 4, IDENTITY, 0, 0, 0x40_0000, False, columns)
    found = [stop, count, copies.share_pages(there, IDENTITY, frames, more, *columns[1:, :count], 4), int(more.sum())]
    where = there, frames, child, 4, IDENTITY, columns, count
    needed, absent = copies.place_pages(*where, columns[0, :0], EPT(ad_bits=True).table)
    made = np.zeros(needed, np.int64)
    buddy.allocate_many(zone, frames, 0, State.TABLE, 1, made)
    found += [needed, absent, *copies.place_pages(*where, made, EPT(ad_bits=True).table)]
    found += [tables.translate(there, child, 4, 0x1F_D123)]
    found += [*listing.take_pages(there, child, 4, IDENTITY, 0, 0, 0x40_0000, True, columns), *columns[3, :3].tolist()]
    gone = columns[3, :count] >> 12 & 0xFFFF
    form, halves, links = EPT(ad_bits=True), np.zeros(2, np.int64), np.zeros(2, np.int64)
    buddy.allocate_many(zone, frames, 0, State.TABLE, 1, halves)
    stored = halves[:1] << 12, np.array([9 << 12 | 3]), halves[1:] << 12
    found += [
        store_mirrored(there, frames, *stored, form.page, form.accessed, form.dirty, links),
        there[halves[1] << 9],
    ]
    found += [copies.drop_frames(more, gone), int(more.sum()), tables.translate(there, child, 4, 0x1F_D123)]
    copies.share_frames(more, frames, some[:2] & -4, 2)
    return [*found, int(more.sum())]


def kernel_side() -> list[Any]:
    """Declare and take away parts of an address space, and have frames stand ready until some go back."""
    space = Regions()
    space.declare(0x1000, 0x9000, 3)
    space.declare(0x4000, 0x5000, 1)
    space.remove(0x7000, 0x8000)
    found = [*space, *(space.around(address) for address in (0, 0x4800, 0x7800))]
    zone, frames = buddy.make_zone(1024)
    ready, pages = np.zeros(1024, np.int64), np.zeros(40, np.int64)
    for _ in range(12):
        buddy.allocate_many(zone, frames, 0, State.GUEST, 1, pages)
        give_back(zone, frames, ready, pages)
        found.append((int(ready[0]), int(zone[0].free)))
    return found


def logs() -> list[Any]:
    """Protect, write, split, gather, clean, permit and put together again the pages of a VM that is logged."""
    there, form, registers = memory(), EPT(ad_bits=True), make_vm()
    _, frames = buddy.make_zone(1024)
    shape = there, 1 << 12, 3
    registers["nested_root"], registers["nested_levels"], registers["nested_dirty"] = *shape[1:], form.dirty
    there[1 << 9] = 2 << 12 | form.table
    tables.map_page(there, frames, *shape[1:], 2, IDENTITY, 0, 512, form.page)
    found = [dirty.update_leaves(*shape, 512, form.dirty, 2, 0), dirty.large_page(*shape, 0, 1 << 21)]
    dirty.split(there, frames, *shape[1:], 0, 3, form.table, form.dirty, False)
    registers["pml"], registers["pml_index"] = 1, 511
    written = np.zeros(512, bool)
    found += [dirty.store_at(there, registers, 7 << 12), registers["pml_log"][0, 511]]
    found += [dirty.gather(*shape, 512, form.dirty, written), dirty.clean(*shape, written, form.dirty), *written]
    found += [dirty.update_leaves(*shape, 512, 0, 0, 2)]
    found += [ranges.lead_elsewhere(*shape, 519, 600, np.empty(9, np.int64)), dirty.permit_one(*shape, 0) is None]
    found += [dirty.collapse(there, frames, *shape[1:], 512, 2, np.zeros(1, np.int64), 0, 0), *there[1024:1032]]
    there[: 1024 << 9] = 0
    return [int(value) for value in found]


def shadows() -> list[Any]:
    """Fault, store, load, invalidate, write over and drop under three shadow monitors."""
    out: list[Any] = []
    for spec in (
        SHADOW_PRESETS["plex86"].model_copy(update={"fill": "eager"}),
        SHADOW_PRESETS["plex86"].model_copy(update={"hide": "present-bit"}),
        ShadowSpec(),
    ):
        world = World(spec, frames=64, size=512)
        world.store((8 << 12, 9 << 12 | 7), (9 << 12, 10 << 12 | 7), (10 << 12, 11 << 12 | 7), (11 << 12, 40 << 12 | 7))
        world.load_root(8 << 12)
        out += [world.access(0, True), world.load(11 << 12)]
        world.store((11 << 12, 41 << 12 | 7), (11 << 12 | 8, 42 << 12 | 7))
        world.invalidate(0, 0x1FFF)
        out += [world.access(0), world.access(0x1000), *world.leaves()]
        world.clear(11)
        world.flush()
        out += [world.access(0), *taken(world.shadow, 40), world.access(0), world.shadow.recover()]
        world.store((11 << 12 | 16, 11 << 12 | 7))  # the table is a page of the program's, too
        out.append(world.access(0x2000))
        out += [sorted(world.exits.items()), sorted(figures_of(world.shadow).items()), world.vcpu.now]
    return out


def taken(second: SecondMmu, gfn: int) -> list[Any]:
    """Look at a page, protect it, and take it out of the tables of a mode."""
    seen = [verb(gfn, 1, clear=True).tolist() for verb in (second.age, second.dirty)]
    return [*seen, list(second.leaves()), second.protect(gfn, 1), second.zap(gfn, 1)]


def served() -> list[Any]:
    """Run VMs whose faults are handled where they occur."""
    tables = [vm("small"), vm("large", guest_page="2M"), vm("around", fill_chunk=4)]
    tables += [vm(f"{mode}-vm", mode=mode) for mode in ("native", "shadow", "agile", "vkernel")]
    hardware = Hardware(make_cores(PREFIX, 1), make_llc(PREFIX), physical_memory(12288))
    simulation = Simulation(scenario(*tables, memory="48MiB"), hardware=hardware)
    return [digest(simulation.run()), simulation.env.cycle]


def merged() -> list[Any]:
    """Have equal pages of two VMs and a program share frames, and look at what they hold."""
    work = {"kind": "uniform", "footprint": 16 << 12, "accesses": 60, "compute": 20_000, "writes": 0.1}
    content = {"image": "x", "image_share": 0.6, "unique_share": 0.2, "volatile": 0.5}
    modes = (("a", "ept"), ("b", "native"), ("c", "ept"))
    tables = [vm(name, content=content, mode=mode, memory="512KiB") | {"workload": work} for name, mode in modes]
    ksm = {"run": 1, "sleep_millisecs": 0, "pages_to_scan": 500}
    hardware = Hardware(make_cores(PREFIX, 3), make_llc(PREFIX), physical_memory(4096))
    simulation = Simulation(scenario(*tables, ksm=ksm, cores=3, what_if=True), hardware=hardware)
    outcome = simulation.run()
    counts = [sorted(each.figures.named("ksm").items()) for each in outcome.vms]
    return [digest(outcome), counts, simulation.env.cycle]


def agile() -> list[Any]:
    """Have tables change sides, walk through them, and write over one."""
    world = AgileWorld(frames=64, size=512)
    world.store((8 << 12, 9 << 12 | 7), (9 << 12, 10 << 12 | 7), (10 << 12, 11 << 12 | 7), (11 << 12, 40 << 12 | 7))
    world.load_root(8 << 12)
    out: list[Any] = [world.access(0)]
    for table in (11, 10):
        world.store((table << 12 | 8, 0), (table << 12 | 16, 0))
        world.invalidate(0, 0x3FFF)
        out += [world.access(0, True), sorted(world.nested.items())]
    world.tick()
    world.store((11 << 12, 41 << 12 | 7))
    world.tick()
    world.shadow.protect_logged(8, 4)
    out += [sorted(world.nested.items()), world.access(0), *world.leaves()]
    world.clear(11)
    world.flush()
    return [
        *out,
        world.access(0),
        sorted(world.exits.items()),
        sorted(figures_of(world.shadow).items()),
        world.vcpu.now,
    ]


def vkernels() -> list[Any]:
    """Fault, store and invalidate under a vkernel's host."""
    world = VkernelWorld([8], frames=64, size=512)
    world.store((8 << 12, 9 << 12 | 7), (9 << 12, 10 << 12 | 7), (10 << 12, 11 << 12 | 7), (11 << 12, 40 << 12 | 7))
    world.load_root(0)
    out: list[Any] = [world.access(0, True), world.access(0x1000)]
    world.store((11 << 12, 41 << 12 | 7), (11 << 12 | 8, 42 << 12 | 7))
    world.flush(whole=False)
    out += [world.access(0), world.access(0x1000), world.audit()]
    world.flush()
    out += [world.access(0), *taken(world.vkernel, 41)]
    return [*out, sorted(world.vkernel.exits.items()), sorted(figures_of(world.vkernel).items()), world.vcpu.now]


def kernels() -> dict[str, Any]:
    """Return every kernel that a simulation runs, by name."""
    found = {}
    for path in jitted_sources():
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] in ("calibration", "jit", "workloads") or "check" in parts:
            continue
        module = importlib.import_module(".".join(("vmsim", *parts)))
        for name, value in vars(module).items():
            is_kernel = type(getattr(value, "_cache", None)).__name__ in (
                "KernelCache",
                "FunctionCache",
            )  # leaves have none
            if is_kernel and value.py_func.__module__ == module.__name__:
                found[f"{module.__name__.removeprefix('vmsim.')}.{name}"] = value
    return found


def main() -> None:
    parts = (
        [runs] if "--walks" in sys.argv else [runs, edits, kernel_side, logs, shadows, served, merged, agile, vkernels]
    )
    made = [part() for part in parts]
    whole = hosts() if "--hosts" in sys.argv else []
    results = json.dumps(made, sort_keys=True, default=int)
    out: dict[str, Any] = {"way": WAY, "results": hashlib.sha256(results.encode()).hexdigest(), "length": len(results)}
    out["hosts"] = whole
    if hasattr(buddy.allocate, "signatures"):
        out["kernels"] = {name: len(kernel.signatures) for name, kernel in kernels().items()}
        stats = [kernel.stats for kernel in kernels().values()]
        out["loaded"] = sum(sum(each.cache_hits.values()) for each in stats)
        out["compiled"] = sum(sum(each.cache_misses.values()) for each in stats)
        specialised = {"machine.vcpu.run": vcpu._run} if WAY == "fast" else {}
        out["specialised"] = {name: len(routine.signatures) for name, routine in specialised.items()}
        if "--ir" in sys.argv:  # there is IR to look at only where nothing came from the cache
            out["counted"] = [
                name
                for name, kernel in (kernels() | specialised).items()
                for signature in kernel.signatures
                if "NRT_incref" in kernel.inspect_llvm(signature)
            ]
    print(json.dumps(out))


if __name__ == "__main__":
    main()
