"""Do a guest's two scanners move what Linux's would, against a plain twin, and does each way to wait make blocks?"""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.guest.test_khugepaged import COST, Cpu, Nobody, done
from tests.host.test_thp import final
from tests.oracle.huge import BLOCK, TwoScanners
from tests.simulation.small import BASE, PAGE, READ, WRITE, Script, run, scenario, vm
from vmsim.base.clock import Clock
from vmsim.frames.isolation import isolate_range
from vmsim.frames.records import UNMOVABLE, State
from vmsim.guest.compaction import COMPACTION, GuestCompaction
from vmsim.guest.frames import GuestFrames
from vmsim.guest.kernel import INIT, GuestKernel
from vmsim.guest.migration import Migration
from vmsim.guest.mmu import HardwareMmu
from vmsim.guest.program_pages import ProgramPages
from vmsim.machine.memory import physical_memory

MODES = ("native", "ept", "npt", "shadow", "agile", "paired", "vkernel")
RIGHTS = 1 | 2 | 4
BLOCKS = 9


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_scanners_move_what_their_twin_does(seed: int, direct: bool) -> None:
    random = Random(seed)
    cpu, memory = Cpu(), physical_memory(BLOCKS * BLOCK)
    frames = GuestFrames(BLOCKS * BLOCK, Nobody(), owner=0)  # type: ignore[arg-type]
    mmu = HardwareMmu(memory)
    kernel = GuestKernel(memory, mmu, frames, levels=4, page_order=9, costs=COST)
    done(kernel.boot(cpu))
    space = kernel.processes[INIT].space
    for number in range(BLOCKS):  # so that all tables are there
        gfn = done(frames.allocate(cpu, 0))
        assert done(kernel.tables.map(cpu, space.root, BASE + (number * BLOCK + BLOCK - 1) * PAGE, 1, gfn, RIGHTS))
    frames.drain()
    shares = [(random.choice([0.2, 0.5, 0.8]), random.choice([0, 0, 0.01])) for _ in range(BLOCKS)]
    pinned = set()
    taken = np.empty(1, np.int64)
    for gfn in np.flatnonzero(frames.frames["state"] == State.FREE).tolist():
        full, odd = shares[gfn // BLOCK]
        if gfn % BLOCK < BLOCK - 1 and (random.random() < full or gfn % BLOCK == 7):
            isolate_range(frames.zone, frames.frames, gfn, gfn + 1, 0, taken)
            frames.frames["state"][gfn] = State.GUEST
            assert done(kernel.tables.map(cpu, space.root, BASE + gfn * PAGE, 1, gfn, RIGHTS))
            if random.random() < odd:
                pinned.add(gfn)
    records = frames.frames
    kinds = ["free" if state == State.FREE else "page" if state == State.GUEST else "fixed"
             for state in records["state"].tolist()]  # fmt: skip
    kinds = ["fixed" if gfn in pinned else kind for gfn, kind in enumerate(kinds)]
    unmovable = {number for number in range(BLOCKS) if records["mobility"][number * BLOCK] == UNMOVABLE}
    assert unmovable
    twin = TwoScanners([*kinds], unmovable)
    pages = ProgramPages(memory, mmu, frames, kernel.cpus, levels=4, width=9, spaces=lambda: [space])
    queue: Any = SimpleNamespace()
    more: dict[str, Any] = {"env": Clock(), "queue": queue, "low": 0, "cache": None, "pinned": pinned.__contains__}
    compaction = GuestCompaction(pages, frames, kernel.tables, COST, **more)
    before = {gfn: place for gfn, place in enumerate(records["rmap"].tolist()) if kinds[gfn] == "page"}
    cpu.cycles.clear()
    assert done(compaction.compact(cpu, 9, direct=direct)) == twin.compact(direct=direct)
    after = {place: gfn for gfn, place in enumerate(records["rmap"].tolist()) if records["state"][gfn] == State.GUEST}
    assert {(gfn, after[place]) for gfn, place in before.items() if after[place] != gfn} == final(twin.moves)
    for place, gfn in after.items():
        assert memory[place >> 3] >> 12 == gfn
    counts = compaction.figures()
    assert counts["compact_migrate_scanned"] == twin.migrate_scanned
    assert counts["compact_free_scanned"] == twin.free_scanned
    assert counts["pgmigrate_success"] == len(twin.moves)
    each = COST.copy_page + COST.table_page + 2 * COST.entry_edit
    looked = twin.migrate_scanned + twin.free_scanned
    assert cpu.cycles[COMPACTION] == looked * COST.log_scan + len(twin.moves) * each
    assert int((records["state"] == State.FREE).sum()) == kinds.count("free") == int(frames.zone["free"][0])
    assert compaction.held == 0


def outcome_of(mode: str, steps: list[Any], **thp: Any) -> Any:
    """Return what becomes of a VM whose free memory, or its host's in mode native, is in single pages."""
    given: dict[str, Any] = {"mode": mode, "memory": "12MiB", "populate": "lazy", "thp": {"enabled": "always"} | thp}
    given |= {} if mode == "native" else {"fragmentation": 1.0}
    host: dict[str, Any] = {"memory": "48MiB", "cores": 2, "what_if": True}
    host |= {"fragmentation": 1.0} if mode == "native" else {}
    _, outcome = run(scenario(vm(vcpus=2, **given), **host), [Script(steps)], every=2_000_003)
    assert outcome.ending is None
    return outcome.vms[0]


TOUCHES: list[Any] = [("touch", page, page % 2) for page in range(512)]


@pytest.mark.parametrize("mode", MODES)
def test_a_fault_compacts_memory_in_every_mode(mode: str) -> None:
    """One page of 2 MiB, for which others have moved, in the place of 512 faults."""
    seen = outcome_of(mode, TOUCHES, defrag="always")
    counts = seen.figures.named("guest_compaction")
    assert seen.guest_faults == 1
    assert (counts["compact_stall"], counts["compact_success"]) == (1, 1)
    assert counts["pgmigrate_success"] >= 256  # every other page of a pageblock
    assert seen.cycles["compaction"] >= 256 * COST.copy_page


@pytest.mark.parametrize("mode", ["ept", "native"])
def test_defrag_says_who_compacts_and_when(mode: str) -> None:
    """By name and by what the program has advised (MADV_HUGEPAGE, 14), as of vma_thp_gfp_mask."""
    advised = [("map", 0, 512), ("advise", 0, 512, 14), *TOUCHES]
    plain = [("map", 0, 512), *TOUCHES]
    found = {}
    for defrag in ("always", "defer", "defer+madvise", "madvise", "never"):
        for name, steps in (("advised", advised), ("plain", plain)):
            counts = outcome_of(mode, steps, defrag=defrag).figures.named("guest_compaction")
            found[defrag, name] = counts.get("compact_stall", 0), counts.get("compact_daemon_wake", 0) > 0
    directly, later, never = (1, False), (0, True), (0, False)
    assert found == {
        ("always", "advised"): directly,
        ("always", "plain"): directly,
        ("defer", "advised"): later,
        ("defer", "plain"): later,
        ("defer+madvise", "advised"): directly,
        ("defer+madvise", "plain"): later,
        ("madvise", "advised"): directly,
        ("madvise", "plain"): never,
        ("never", "advised"): never,
        ("never", "plain"): never,
    }


def test_khugepaged_compacts_unless_it_is_told_not_to() -> None:
    steps = [*TOUCHES, ("compute", 4_000_000), ("touch", 0, READ), ("touch", 1, WRITE)]
    for defrag in (True, False):
        keys = {"khugepaged": True, "scan_sleep_millisecs": 1, "khugepaged_defrag": defrag}
        seen = outcome_of("ept", steps, **keys)
        assert seen.figures.named("guest_khugepaged")["pages_collapsed"] == defrag
        assert (seen.figures.named("guest_compaction")["compact_success"] > 0) == defrag


def test_what_lies_between_free_frames_makes_way_for_memory_that_is_unplugged() -> None:
    """Of 6 MiB in single pages 2 MiB are emptied: 256 pages go elsewhere, and the kernel has as many as before."""
    cpu, memory = Cpu(), physical_memory(3 * BLOCK)
    frames = GuestFrames(3 * BLOCK, Nobody(), owner=0)  # type: ignore[arg-type]
    frames.age(span=0, share=1.0, seed=1)
    mmu = HardwareMmu(memory)
    kernel = GuestKernel(memory, mmu, frames, levels=4, page_order=0, costs=COST)
    pages = ProgramPages(memory, mmu, frames, kernel.cpus, levels=4, width=9, spaces=lambda: [])
    parts = pages, frames, kernel.tables, COST
    migration = Migration(*parts, cause="hotplug", cache=None, pinned=lambda gfn: False)
    assert done(migration.empty(cpu, BLOCK, 2 * BLOCK))
    assert migration.counts["moved"] == BLOCK // 2
    assert int(frames.clutter.sum()) == frames.kept == 3 * BLOCK // 2
    assert not frames.clutter[BLOCK : 2 * BLOCK].any()
    assert (frames.frames["state"][frames.clutter] == State.HOST).all()
