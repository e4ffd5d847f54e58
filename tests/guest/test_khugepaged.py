"""Does a guest's khugepaged collapse what Linux's would, against a plain twin, and lose nothing in any mode?"""

from __future__ import annotations

from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.oracle.huge import BLOCK
from tests.oracle.huge import GuestKhugepaged as Twin
from tests.simulation.small import BASE, PAGE, READ, WRITE, Script, run, scenario, vm
from vmsim.base.clock import Clock
from vmsim.engine.guest_huge import GuestHuge
from vmsim.frames.records import State
from vmsim.guest.frames import GuestFrames
from vmsim.guest.kernel import INIT, GuestKernel
from vmsim.guest.khugepaged import KHUGEPAGED, GuestKhugepaged
from vmsim.guest.mmu import HardwareMmu
from vmsim.guest.process import Process
from vmsim.guest.spaces import Space
from vmsim.machine.memory import physical_memory
from vmsim.record.outcome import Outcome
from vmsim.scenario import load_cpu
from vmsim.scenario.thp import Khugepaged as Told
from vmsim.scenario.thp import ThpSpec
from vmsim.tables.backing import IDENTITY

MODES = ("native", "ept", "npt", "shadow", "agile", "paired", "vkernel")
COST = load_cpu("yardstick").cost
BITS, RW, ACCESSED = 1 | 4, 2, 1 << 5


class Cpu:
    """A CPU that has no time."""

    number = owed = left = 0

    def __init__(self) -> None:
        self.cycles: Counter[str] = Counter()
        self.registers = np.zeros(1, [("cr3", "i8"), ("levels", "i8")])
        self.flushes = 0
        self.spaces = SimpleNamespace(load=lambda *_, **__: None, flush=self._flush, invalidate=lambda *_: None)

    def _flush(self) -> None:
        self.flushes += 1

    def owe(self, cause: str, cycles: int) -> None:
        self.cycles[cause] += cycles

    def settle(self) -> None:
        return


class Nobody:
    """A host that has backed everything."""

    backing = IDENTITY

    def touch(self, vcpu: Any, gfn: int, order: int) -> Any:
        return
        yield


def done(steps: Any) -> Any:
    """Return what steps return that wait for nobody."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class Device:
    """A swap device that gives a page back at once."""

    def __init__(self, frames: GuestFrames) -> None:
        self.frames = frames

    def bring(self, vcpu: Any, space: Space, number: int, *, write: bool) -> Any:
        del space.away[number]
        return (yield from self.frames.allocate(vcpu, 0)), True


class World:
    """Address spaces of one guest whose pages are of the kinds given: "own", "shared", "swapped", "huge" or ""."""

    def __init__(self, random: Random, kinds: list[list[str]], young: set[Any], writable: set[Any]) -> None:
        self.cpu, memory = Cpu(), physical_memory(24 * BLOCK)
        self.frames = GuestFrames(24 * BLOCK, Nobody(), owner=0)  # type: ignore[arg-type]
        mmu = HardwareMmu(memory)
        spec = ThpSpec(False, "never", None)
        self.kernel = GuestKernel(memory, mmu, self.frames, levels=4, page_order=9, costs=COST, thp=spec)
        done(self.kernel.boot(self.cpu))
        for pid in range(INIT + 1, INIT + len(kinds)):
            space = Space(done(self.kernel.tables.new_root(self.cpu)))
            self.kernel.processes[pid] = Process(pid, INIT, space)
        self.kernel.swap_to(Device(self.frames))  # type: ignore[arg-type]
        self.spaces = [self.kernel.processes[INIT + at].space for at in range(len(kinds))]
        for at, first in ((at, first) for at, each in enumerate(kinds) for first in range(0, len(each), BLOCK)):
            if kinds[at][first] == "huge":
                self._map(at, first, self.frames._block(9), 2, BITS | RW | ACCESSED)
        pages = [(at, number) for at, each in enumerate(kinds) for number, kind in enumerate(each) if kind != "huge"]
        random.shuffle(pages)  # so that what is freed together does not lie together
        self.frame_of: dict[tuple[int, int], int] = {}
        for at, number in pages:
            kind = kinds[at][number]
            if kind in ("own", "shared"):
                bits = BITS | RW * ((at, number) in writable) | ACCESSED * ((at, number) in young)
                gfn = self.frame_of[at, number] = done(self.frames.allocate(self.cpu, 0))
                self._map(at, number, gfn, 1, bits)
                if kind == "shared":
                    self.kernel.sharing.add(np.array([gfn]), 0)
            elif kind == "swapped":
                self.spaces[at].away[(BASE >> 12) + number] = 7

    def _map(self, at: int, number: int, gfn: int, level: int, bits: int) -> None:
        where = self.spaces[at].root, BASE + number * PAGE
        assert done(self.kernel.tables.map(self.cpu, *where, level, gfn, bits))

    def levels(self, at: int, ranges: int) -> list[int]:
        """Return the level of the entry that maps the first page of each range, 0: none does."""
        entries = [
            done(self.kernel.tables.find(self.cpu, self.spaces[at].root, BASE + number * BLOCK * PAGE))
            for number in range(ranges)
        ]
        return [entry.level if entry.value else 0 for entry in entries]


def drawn_kinds(random: Random, ranges: int) -> list[str]:
    kinds = []
    for _ in range(ranges):
        weights = random.choice([(1, 0, 0, 0), (8, 1, 0, 4), (4, 1, 4, 1), (1, 1, 1, 8), (0, 0, 0, 1), (5, 0, 1, 3)])
        kinds += (
            ["huge"] * BLOCK
            if random.random() < 0.15
            else random.choices(["own", "shared", "swapped", ""], weights, k=BLOCK)
        )
    return kinds


@pytest.mark.parametrize("seed", range(8))
def test_it_collapses_what_its_twin_does(seed: int) -> None:
    random = Random(seed)
    kinds = [drawn_kinds(random, random.randint(1, 3)) for _ in range(3)]
    there = [(at, number) for at, each in enumerate(kinds) for number, kind in enumerate(each) if kind[:1] in "os"]
    there = [place for place in there if kinds[place[0]][place[1]] in ("own", "shared")]
    dense = random.choice([0.9, 0.01])
    young = {place for place in there if random.random() < dense}
    writable = {place for place in there if random.random() < random.choice([0.9, 0.003])}
    busy = {random.choice(there)} if there and random.random() < 0.4 else set()
    world = World(random, kinds, young, writable)
    while random.random() < 0.9:
        world.frames._block(9)
    states = world.frames.frames["state"].reshape(-1, BLOCK)
    blocks = int((states == State.FREE).all(axis=1).sum())
    limits = random.choice([511, 200, 20]), random.choice([64, 300]), random.choice([256, 10])
    twin = Twin([[*each] for each in kinds], young, busy, blocks, *limits, writable=writable)
    told = Told(random.choice([512, 1024, 4096]), 1, 1, *limits, False)
    pinned = {world.frame_of[place] for place in busy}
    daemon = GuestKhugepaged(told, COST, kernel=world.kernel, pinned=pinned.__contains__)
    for _ in range(8):
        assert done(daemon.batch(world.cpu)) == twin.batch(told.pages)
    counts = sum(twin.counts, Counter())
    found = {name: daemon.counts[name] for name in counts}
    assert found == counts
    assert daemon.counts["full_scans"] == twin.full_scans
    assert world.cpu.flushes == 0 or counts["pages_collapsed"]
    for at, each in enumerate(twin.vms):
        levels = world.levels(at, len(each) // BLOCK)
        assert [level == 2 for level in levels] == [each[first] == "huge" for first in range(0, len(each), BLOCK)]


def test_a_range_collapsed_costs_its_pages_and_frees_them_and_their_table() -> None:
    """500 pages are copied and unmapped, 12 cleared; a table goes, and 512 frames for 500."""
    kinds = [["own"] * 500 + [""] * 12]
    places = {(0, number) for number in range(500)}
    world = World(Random(1), kinds, places, places)
    told = Told(512, 1, 1, 511, 64, 256, False)
    daemon = GuestKhugepaged(told, COST, kernel=world.kernel, pinned=lambda gfn: False)
    world.cpu.cycles.clear()
    world.frames.drain()
    free = world.frames.free
    assert not done(daemon.batch(world.cpu))
    each = 512 * COST.log_scan + 500 * (COST.copy_page + COST.unmap_page) + 12 * COST.zero_page
    assert world.cpu.cycles[KHUGEPAGED] == COST.context_switch + each + COST.guest_fault + COST.table_page
    assert world.frames.free == free - 512 + 500 + 1
    entry = done(world.kernel.tables.find(world.cpu, world.spaces[0].root, BASE))
    assert entry.value & 0xFFF == 0b1110_0111  # large, dirty, accessed, user, writable, present
    assert world.frames.frames["rmap"][entry.first] == entry.place
    assert daemon.held == 0


def test_what_a_fork_shares_stays_with_the_child() -> None:
    """The parent has a page of its own then; of each small one an entry is left."""
    steps = [("map", 0, 512), *(("touch", page, WRITE) for page in range(512)), ("fork", 2), ("advise", 0, 512, 14)]
    steps += [("touch", 0, WRITE), ("compute", 6_000_000), ("touch", 1, READ), ("switch", 2)]
    steps += [("touch", page, READ) for page in range(512)]
    seen = outcome_of("ept", steps, max_ptes_shared=511, enabled="madvise")
    figures = seen.vms[0].figures
    assert figures.named("guest_khugepaged")["pages_collapsed"] == 1
    assert figures.named("guest")["copies"] == 1


QUICK = {"enabled": "always", "khugepaged": True, "scan_sleep_millisecs": 1, "alloc_sleep_millisecs": 0}


def outcome_of(
    mode: str, steps: list[Any], *, vms: int = 1, host: Any = None, guest: Any = None, **thp: Any
) -> Outcome:
    """Return what becomes of VMs that map a region page by page at first, on a host that is checked all along."""
    given: dict[str, Any] = {"mode": mode, "memory": "8MiB", "populate": "lazy", "thp": QUICK | thp}
    given |= guest or {}
    tables = [vm(f"vm{number}", **given) for number in range(vms)]
    spec = scenario(*tables, memory="32MiB", cores=2, what_if=True, **(host or {}))
    _, outcome = run(spec, [Script(steps) for _ in tables], every=1_000_003)
    assert outcome.ending is None
    return outcome


def grown(rest: list[Any]) -> list[Any]:
    """Return steps that map 2 MiB in two halves, the second when the first is mapped small, and then go on."""
    steps: list[Any] = [("map", 0, 256), *(("touch", page, WRITE) for page in range(256)), ("map", 256, 256)]
    return [*steps, *(("touch", page, page % 2) for page in range(512)), ("compute", 6_000_000), *rest]


@pytest.mark.parametrize("mode", MODES)
def test_pages_become_one_in_every_mode_and_nothing_is_lost(mode: str) -> None:
    """An access that faults no more, a part that is unmapped again, and every invariant in between."""
    rest = [*(("touch", page, WRITE) for page in range(512)), ("unmap", 100, 50), ("touch", 120, READ)]
    outcome = outcome_of(mode, grown(rest), vms=2)
    for each in outcome.vms:
        counts = each.figures.named("guest_khugepaged")
        assert counts["pages_collapsed"] == each.figures.named("thp")["thp_collapse_alloc"] >= 1
        assert each.cycles["khugepaged"] > 256 * COST.copy_page
        assert each.guest_faults < 512 + 10


@pytest.mark.parametrize("mode", MODES)
def test_it_waits_for_other_cpus_to_forget(mode: str) -> None:
    """The guest's second CPU runs the same space: one interrupt for each collapse."""
    outcome = outcome_of(mode, grown([("touch", 0, WRITE), ("compute", 100_000)]), guest={"vcpus": 2})
    assert outcome.vms[0].figures.named("guest_khugepaged")["pages_collapsed"] == 1


@pytest.mark.parametrize(
    ("mode", "host", "guest"),
    [
        ("shadow", {"reclaim": {"rate": 50_000}}, {}),
        ("ept", {"ksm": {"run": 1, "sleep_millisecs": 0}}, {"content": {"image": "x", "image_share": 0.7}}),
        ("vkernel", {"thp": {"enabled": "always", "scan_sleep_millisecs": 0}}, {}),
        ("ept", {}, {"balloon": {"schedule": [["100us", "4MiB"], ["400us", 0]], "message": 32}}),
        ("shadow", {}, {"reclaim": {"policy": "two-list", "swap": "nvme"}}),
    ],
)
def test_it_gets_on_with_what_takes_pages(mode: str, host: Any, guest: Any) -> None:
    """A guest of 8 MiB whose programs touch nearly all of it, and one that is short of memory then."""
    rest = [("touch", page, page % 2) for page in range(2000 if "reclaim" in guest else 1000)]
    outcome = outcome_of(mode, grown(rest), vms=2, host=host, guest=guest)
    assert sum(each.figures.named("guest_khugepaged")["pages_collapsed"] for each in outcome.vms) > 0


def test_it_rests_as_long_as_it_has_worked() -> None:
    """It looks again at once, and each time takes 5,000 cycles of a CPU on which there is a program too."""
    env, begun = Clock(), []

    class Queue:
        alive = True

        def run(self, work: Any, *, interrupt: bool) -> Any:
            begun.append(env.cycle)
            self.alive = len(begun) < 5
            vcpu = SimpleNamespace(now=env.cycle)
            value = yield from work(vcpu)
            yield env.timeout(vcpu.now - env.cycle)
            return value

    class Khugepaged:
        def batch(self, vcpu: Any) -> Any:
            vcpu.now += 5000
            return False
            yield

    huge = SimpleNamespace(env=env, queue=Queue())
    env.process(GuestHuge._run(huge, Told(4096, 0, 0, 511, 64, 256, False), Khugepaged()))  # type: ignore[arg-type]
    env.timeout(10**6)  # something else to come
    env.run()
    assert begun == [0, 10_000, 20_000, 30_000, 40_000]
