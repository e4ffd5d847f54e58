"""Does a host that shares a guest's allocator take huge frames without its help, and does the guest ask for them?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.bilateral import HUGE, Shared
from tests.simulation.small import READ, WRITE, Script, Step, Threads, run, scenario, touches, vm
from vmsim.base.clock import Clock
from vmsim.base.errors import InputError
from vmsim.contracts import NO_FLUSH, Flush, Steps
from vmsim.engine.simulation import Simulation
from vmsim.frames.isolation import isolate_range
from vmsim.frames.records import NO_FRAME, State
from vmsim.guest.bilateral import SharedFrames
from vmsim.guest.frames import GuestFrames
from vmsim.host.bilateral import Bilateral
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario, load_cpu
from vmsim.scenario.bilateral import BilateralSpec
from vmsim.tables.backing import BALLOONED, OWNED, SHARED, SMALL_PAGE

MODES = ("ept", "npt", "shadow", "agile", "vkernel", "paired")
HOST: dict[str, Any] = {"what_if": True, "memory": "64MiB", "cores": 2}
COST = load_cpu("yardstick").cost
NUMBERS = st.integers(0, 11)


class World:
    """A kernel's allocator of 12 huge frames and a few frames more, its host, and the twin of both."""

    def __init__(self, least: int) -> None:
        self.env = Clock()
        self.backing = np.zeros(12 * HUGE + 100, np.int64)
        self.frames = GuestFrames(len(self.backing), self, owner=0)  # type: ignore[arg-type]
        self.frames.floor = least
        self.taken = 0
        self.holds = False
        shared = self.frames.shared = SharedFrames(self.frames, self.install, self.hold_back)
        self.shared = shared
        self.device = Bilateral(
            self.env,
            BilateralSpec(((0, 0),), soft=True, every=1 << 40, most=0),
            COST,
            memory=self,  # type: ignore[arg-type]
            forget=lambda flush, times: 0,
            horizon=1 << 60,
            log=lambda what, pages: None,
            shared=shared,
        )
        first, limit = 12 * HUGE, len(self.backing)  # in no huge frame, and used from the start
        isolate_range(self.frames.zone, self.frames.frames, first, limit, 0, np.empty(limit - first, np.int64))
        self.twin = Shared(12, least)
        self.blocks: list[tuple[int, int]] = []

    def hold_back(self, on: bool) -> None:
        self.holds = on

    def install(self, vcpu: Any, number: int) -> Steps[None]:
        self.backing[number * HUGE : (number + 1) * HUGE] = SMALL_PAGE
        self.device.installed(number)
        yield from ()

    def touch(self, vcpu: Any, gfn: int, order: int) -> Steps[None]:
        self.backing[gfn : gfn + (1 << order)] = SMALL_PAGE
        yield from ()

    def discard(self, first: int, count: int, to: int) -> Flush:
        words = self.backing[first : first + count]
        self.taken += int(np.count_nonzero(words & OWNED))
        words[:] = to
        return NO_FLUSH

    def allow(self, first: int, count: int) -> None:
        words = self.backing[first : first + count]
        words[words == BALLOONED] = 0

    def allocate(self, order: int) -> None:
        gfn = self.frames._one() if order == 0 else self.frames._block(order)
        if gfn == NO_FRAME:
            return
        for _ in self.frames.bring(None, gfn, order):  # type: ignore[arg-type]
            pass
        self.twin.allocate(range(gfn, gfn + (1 << order)))
        self.blocks.append((gfn, order))

    def give(self, at: int) -> None:
        if self.blocks:
            gfn, order = self.blocks.pop(at % len(self.blocks))
            self.frames.give(np.array([gfn]), order)
            self.twin.give(range(gfn, gfn + (1 << order)))

    def compare(self) -> None:
        twin, shared, device = self.twin, self.shared, self.device
        state = np.where(device.hard, "hard", np.where(shared.evicted, "soft", "installed")).tolist()
        assert state == twin.state
        assert set(np.flatnonzero(self.backing & OWNED).tolist()) == twin.backed
        assert self.holds == (twin.state.count("installed") < 12)
        counts = device.counts
        for name in ("looked", "soft", "hard", "restored", "installed"):
            assert counts[name] == twin.work[name], name
        cycles = twin.work["looked"] * COST.log_scan + twin.work["changes"] * COST.bilateral_frame
        cycles += twin.work["discards"] * COST.discard_call + twin.work["pages"] * COST.discard_page
        assert (counts["cycles"], counts["freed"]) == (cycles, twin.work["pages"])


@settings(max_examples=60)
@given(
    least=st.sampled_from([0, 700]),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("allocate"), st.sampled_from([0, 0, 3, 9])),
            st.tuples(st.just("many"), st.integers(1, 900)),
            st.tuples(st.just("give"), st.integers(0, 1000)),
            st.tuples(st.just("empty"), st.just(0)),
            st.tuples(st.just("soft"), st.just(0)),
            st.tuples(st.just("limit"), NUMBERS),
        ),
        max_size=30,
    ),
)
def test_states_of_huge_frames_and_the_work_are_the_twins(least: int, steps: list[tuple[str, int]]) -> None:
    world = World(least)
    for what, number in steps:
        if what == "allocate":
            world.allocate(number)
        elif what == "many":
            for _ in range(number):
                world.allocate(0)
        elif what == "give":
            world.give(number)
        elif what == "empty":
            while world.blocks:
                world.give(0)
        else:
            world.frames.drain()
            work = world.device.look() if what == "soft" else None
            if what == "limit":
                world.device.set_target(number * HUGE)
                work = world.device.approach()
            world.env.run(world.env.process(work))
            world.twin.reclaim() if what == "soft" else world.twin.limit(number)
        world.compare()


def figures(outcome: Outcome, component: str, number: int = 0) -> dict[str, int]:
    return outcome.vms[number].figures.named(component)


def shared(simulation: Simulation) -> None:
    """See that what the host has taken has no memory, that it has what it took, and that nobody uses that."""
    for machine in simulation.vms:
        if machine.gone or not machine.bilateral:
            continue
        device, evicted = machine.bilateral.device, machine.bilateral.shared.evicted
        states = machine.kernel.frames.frames["state"][: len(evicted) * HUGE].reshape(-1, HUGE)
        words = machine.slot.backing[: len(evicted) * HUGE].reshape(-1, HUGE)
        assert (states[device.hard] == State.HOST).all()
        assert (words[device.hard] == BALLOONED).all()
        assert evicted[device.hard].all()
        unused = evicted & (states == State.FREE).all(axis=1)
        assert not (words[unused] & (OWNED | SHARED)).any()
        assert machine.frames.offline == machine.bilateral.held == device.actual == device.hard.sum() * HUGE


def churn(pages: int = 3000) -> list[Step]:
    """Return steps that fill memory, free most of it, wait, and use it again."""
    everything, most = range(pages), pages - 200
    steps = [("map", 0, pages), *touches(everything, WRITE), ("unmap", 200, most), ("io", 0, 1, 3_000_000)]
    return [*steps, ("map", 200, most), *touches(range(200, pages), WRITE), *touches(everything, READ)]


@pytest.mark.parametrize("page", ["4K", "2M"])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_free_is_taken_and_asked_for_in_every_mode_and_programs_cannot_tell(mode: str, page: str) -> None:
    """Two vCPUs fill 12 of 24 MiB, free most, and use it again, while the host takes softly, and 4 MiB for a while."""
    if page == "2M" and mode == "vkernel":
        pytest.skip("a vkernel is backed by small pages")
    table = vm(mode=mode, vcpus=2, memory="24MiB", host_page=page)
    streams = [Threads([Script(churn()), Script([("touch", 0, READ), ("io", 0, 1, 4_000_000)])])]
    quiet, calm = run(scenario(table, **HOST), streams, events=10**6)
    keys = {"soft": True, "every": "500us", "schedule": [["1ms", "4MiB"], ["2ms", 0]]}
    what = scenario(table | {"bilateral": keys}, **HOST)
    simulation, outcome = run(what, streams, every=600_011, look=shared, events=10**6)
    assert outcome.ending is None
    counts = figures(outcome, "bilateral")
    assert counts["hard"] == counts["restored"] == 2
    assert counts["soft"] >= 5
    assert counts["freed"] >= 4 * HUGE
    assert counts["installed"] == len([each for each in outcome.transfers if each.what == "install"]) > 0
    assert figures(outcome, "exits")["INSTALL"] >= counts["installed"]
    assert outcome.vms[0].memory["hard"] == outcome.vms[0].memory["hard_target"] == 0
    assert outcome.vms[0].counters["accesses"] == calm.vms[0].counters["accesses"]
    assert simulation.host.free == quiet.host.free


def one(steps: list[Step], *, cost: dict[str, int] | None = None, **keys: Any) -> tuple[Scenario, Simulation, Outcome]:
    """Run a VM of one vCPU and 12 MiB under EPT, backed from the start."""
    more = {key: keys.pop(key) for key in ("files", "balloon", "populate", "memory", "reclaim") if key in keys}
    table = vm(**{"memory": "12MiB", "populate": "eager"} | more, bilateral=keys)
    what = scenario(table, cpu_override={"cost": cost or {}}, **HOST)
    simulation, outcome = run(what, [Script(steps)], every=5_000_003, look=shared, events=10**6)
    return what, simulation, outcome


IDLE: list[Step] = [("touch", 0, WRITE), ("io", 0, 1, 40_000_000)]


def test_taking_costs_the_guest_nothing_and_the_host_its_steps() -> None:
    """One huge frame, by hand: six looked at, two states changed, one call, and 512 pages."""
    what, _, outcome = one(IDLE, schedule=[["1ms", "2MiB"]])
    _, _, none = one(IDLE, schedule=[["1s", "2MiB"]])
    cost = what.cpu.cost
    cycles = 6 * cost.log_scan + cost.bilateral_frame + cost.discard_call + HUGE * cost.discard_page
    counts = figures(outcome, "bilateral")
    assert (counts["cycles"], counts["hard"], counts["freed"]) == (cycles, 1, HUGE)
    assert outcome.vms[0].cycles == none.vms[0].cycles
    assert figures(outcome, "exits") == figures(none, "exits")


def test_a_request_costs_one_exit_whose_pages_are_backed_and_mapped() -> None:
    """A program fills the huge frame that it has begun, which had no memory yet, and goes on in one that was taken."""
    steps = [("touch", 0, WRITE), ("io", 0, 1, 4_000_000), *touches(range(1, 700), WRITE)]
    what, simulation, outcome = one(steps, soft=True, every="1ms", populate="lazy")
    cost, exits, prices = what.cpu.cost, outcome.vms[0].exits, simulation.vms[0].pool.prices
    assert figures(outcome, "bilateral")["installed"] == exits["INSTALL"][0] == 1
    each = prices.page + cost.violation_entry + cost.violation_rmap
    table = cost.violation_pool + cost.table_page + prices.table
    there = cost.vm_exit + cost.violation_resume + cost.bilateral_install
    assert exits["INSTALL"][1] == there + HUGE * each + table
    assert exits["EPT_VIOLATION"][0] + HUGE == outcome.vms[0].memory["guest"]  # none where memory was asked for


def test_more_than_is_free_is_taken_when_the_guest_has_freed_it() -> None:
    """A program holds 7 of 12 MiB for a while: 10 MiB are asked for, and taken as they become free."""
    fill = [("map", 0, 1800), *touches(range(1800), WRITE), ("io", 0, 1, 4_000_000), ("unmap", 1, 1799), IDLE[1]]
    _, _, outcome = one(fill, size="10MiB", every="1ms")
    times = [each.time for each in outcome.transfers if each.what == "reclaim_hard"]
    assert outcome.ending is None
    assert times[-1] - times[0] > 10_000_000
    assert 3 * HUGE <= outcome.vms[0].memory["hard"] <= 5 * HUGE  # what stands ready for it keeps its huge frames
    assert outcome.vms[0].memory["hard_target"] == 5 * HUGE


def test_a_kernel_that_reclaims_keeps_what_it_must_have() -> None:
    reclaim = {"policy": "two-list", "swap": "nvme"}
    _, simulation, outcome = one(IDLE, size="10MiB", every="1ms", reclaim=reclaim)
    assert outcome.ending is None
    assert simulation.vms[0].frames.free >= simulation.vms[0].frames.floor > 0


@pytest.mark.parametrize("mode", MODES)
def test_what_one_vm_does_without_lets_another_run(mode: str) -> None:
    giver = vm("giver", mode=mode, memory="12MiB", populate="eager", bilateral={"size": "8MiB"})
    taker = vm("taker", mode=mode, memory="8MiB", start="8ms")
    streams = [Script(IDLE), Script([*touches(range(1280), WRITE), *touches(range(1280), READ)])]
    host = HOST | {"memory": "14MiB"}
    simulation, outcome = run(scenario(giver, taker, **host), streams, every=9_600_011, look=shared, events=10**6)
    assert all(each.finished for each in outcome.vms)
    assert simulation.host.free == simulation.host.size - sum(simulation.host.count(-1).values())


def test_a_policy_of_the_host_sets_the_size() -> None:
    idle = vm("idle", memory="12MiB", populate="eager", bilateral={"max": "8MiB"})
    host = HOST | {"memory": "16MiB", "overcommit": {"policy": "prorata", "every": "1ms"}}
    host |= {"prorata": {"free": 60.0}}
    _, outcome = run(scenario(idle, **host), [Script(IDLE)], look=shared, every=5_000_003)
    assert figures(outcome, "overcommit")["asked"] >= 1
    assert outcome.vms[0].memory["hard"] > 0


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"every": "1ms"}, "every.*it has no effect without"),
        ({"soft": True, "every": 0}, "no time between two looks"),
        ({"size": "12MiB"}, "12MiB of a VM of 12MiB"),
        ({"size": "1MiB"}, "less than a huge frame of 2MiB"),
        ({"schedule": [["2ms", 0], ["1ms", "2MiB"]]}, "not in ascending order"),
        ({"max": "2MiB", "schedule": [["1ms", 0]]}, "the host's policy sets the size"),
        ({"max": "2MiB"}, "bilateral.max has no effect with 'none'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Scenario.from_tables({"host": {"memory": "64MiB"}, "vm": [vm(memory="12MiB", bilateral=keys)]})


def test_a_program_on_the_host_itself_has_no_such_allocator() -> None:
    with pytest.raises(InputError, match=r"bilateral.soft.*no allocator of a guest"):
        Scenario.from_tables({"vm": [vm(memory="12MiB", mode="native", bilateral={"soft": True})]})
