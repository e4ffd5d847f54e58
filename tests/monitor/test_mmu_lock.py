"""Do vCPUs of one VM wait for each other where KVM's do, as long as the lock is held, and nowhere else?"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulation.small import scenario, vm
from vmsim.engine.simulation import Simulation
from vmsim.monitor.mmu_lock import MmuLock
from vmsim.record.outcome import Outcome
from vmsim.record.tables import rows
from vmsim.scenario.cpu_files import load_cpu

COSTS = load_cpu("yardstick").cost
HOLD = COSTS.violation_entry + COSTS.violation_rmap  # of a fault that makes no table
PAGES = 512


def hold(lock: MmuLock, cpu: int, at: int, cycles: int) -> int:
    return lock.fault(at, cycles, cpu)


def test_who_comes_later_waits_whoever_is_simulated_first() -> None:
    lock = MmuLock(3)
    assert hold(lock, 0, 100, 50) == 0
    assert hold(lock, 1, 120, 30) == 30  # until 150, and has it until 180
    assert hold(lock, 2, 0, 100) == 0  # a vCPU that is behind: just before the others
    assert hold(lock, 2, 90, 20) == 10  # until 100, and has it until 120: the first from then on, the second until 200
    assert hold(lock, 0, 500, 10) == 20  # of 100, until 120
    assert hold(lock, 1, 600, 10) == 20
    assert hold(lock, 0, 700, 10) == 0
    assert hold(lock, 0, 800, 0) == 0  # nothing is changed, nothing is taken
    assert lock.words["waits"][0] == 4


def test_who_reads_waits_for_writers_alone() -> None:
    lock = MmuLock(2, shared=True)
    assert [lock.fault(7, 40, 0), lock.fault(8, 40, 1)] == [0, 0]
    assert lock.hold(10, 90) == 0
    assert [lock.fault(at, 40, 0) for at in (9, 10, 60, 99, 100)] == [0, 90, 40, 1, 0]


def test_the_host_has_it_page_by_page() -> None:
    """Three pages from 100 on, 10 cycles each and 5 apart: until 110, 125 and 140; then one that waits for the last."""
    lock = MmuLock(2, shared=True)
    assert lock.hold_each(100, 10, 3, apart=5) == 0
    assert [lock.fault(at, 40, 0) for at in (99, 104, 112, 118, 139, 140)] == [0, 6, 0, 7, 1, 0]
    assert lock.hold_each(136, 10, 2, apart=0) == 4  # at 140 and, with nobody there, at 150
    assert MmuLock(1).hold_each(0, 10, 3, apart=5) == 0


def test_of_one_vcpu_nobody_waits() -> None:
    lock = MmuLock(1)
    assert [lock.hold(0, 50), lock.hold(0, 50), lock.fault(10, 10, 0)] == [0, 0, 0]
    assert not lock


class Queue:
    """The lock once more, as lists: who comes first is served first, and who is moved owes its first delay."""

    def __init__(self) -> None:
        self.served: list[list[int]] = []  # from, until, by whom, wanted when
        self.owed: Counter[int] = Counter()

    def before(self, at: int) -> list[list[int]]:
        """Return what was wanted by then, up to the last that was."""
        return self.served[: next((n for n in range(len(self.served), 0, -1) if self.served[n - 1][3] <= at), 0)]

    def hold(self, cpu: int, at: int, cycles: int) -> int:
        owed = self.owed.pop(cpu, 0)
        before = self.before(at + owed)
        after = self.served[len(before) :]
        begin = max([at + owed, *(each[1] for each in before)])
        free, moved = begin + cycles, dict[int, int]()
        for each in after:
            if (delay := free - each[0]) <= 0:
                break
            each[:] = each[0] + delay, each[1] + delay, each[2], each[3] + delay * (each[2] in moved)
            moved.setdefault(each[2], delay)
            free = each[1]
        self.owed.update(moved)
        self.served = [*before, [begin, begin + cycles, cpu, at + owed], *after]
        return begin - at


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400), st.integers(1, 20)), max_size=200))
def test_no_two_have_it_at_once_and_who_comes_first_has_it_first(asked: list[tuple[int, int, int]]) -> None:
    lock, queue = MmuLock(4), Queue()
    for cpu, at, cycles in asked:
        assert hold(lock, cpu, at, cycles) == queue.hold(cpu, at, cycles)
    words, count = lock.words[0], len(asked)
    assert (words["start"][1:count] >= words["end"][: max(count - 1, 0)]).all()
    assert [
        *zip(words["start"][:count], words["end"][:count], words["who"][:count], words["came"][:count], strict=True)
    ] == [tuple(each) for each in queue.served]
    assert (words["end"] - words["start"]).sum() == sum(cycles for *_, cycles in asked)


def in_turns(vcpus: int, ahead: int, think: int, *, held: int = 500, times: int = 800) -> tuple[float, float]:
    """Have vCPUs want a lock again and again, each so far `ahead` of those behind; return mean wait, and time of one.

    Who is not `ahead` at all is simulated when it comes, as in an event-driven queue.
    """
    random = [Random(cpu) for cpu in range(vcpus)]
    lock, waits = MmuLock(vcpus), 0
    next_at = [each.expovariate(1 / think) for each in random]
    left = [times] * vcpus
    while any(left):
        cpu = min((cpu for cpu in range(vcpus) if left[cpu]), key=lambda cpu: next_at[cpu])
        limit = next_at[cpu] + ahead
        while left[cpu] and next_at[cpu] <= limit:
            wait = hold(lock, cpu, int(next_at[cpu]), held)
            waits += wait
            left[cpu] -= 1
            next_at[cpu] = int(next_at[cpu]) + wait + held + random[cpu].expovariate(1 / think)
    return waits / (vcpus * times), max(next_at) / times


@pytest.mark.parametrize(("vcpus", "think"), [(2, 100), (2, 1500), (4, 1500), (4, 100)])
def test_waits_are_those_of_a_queue_however_far_vcpus_run_ahead(vcpus: int, think: int) -> None:
    """Of whom nobody runs ahead each is simulated when it comes: first come, first served."""
    exact, whole = in_turns(vcpus, 0, think)
    for ahead in (10_000, 80_000):
        wait, time = in_turns(vcpus, ahead, think)
        assert wait == pytest.approx(exact, rel=0.15)
        assert time == pytest.approx(whole, rel=0.045)


def test_old_times_are_forgotten_where_there_are_very_many() -> None:
    lock = MmuLock(2)
    assert [hold(lock, 0, 100 * number, 10) for number in range(700)] == [0] * 700
    assert hold(lock, 1, 69_905, 10) == 5
    assert hold(lock, 1, 5, 10) == 0  # would have been 5


def test_its_line_goes_from_one_vcpu_to_the_next() -> None:
    """Held alone, by 0, 1, 1 and 0, with 7 cycles for the line each time that the other had it."""
    lock = MmuLock(2, transfer=7)
    assert [lock.fault(at, 10, who) for at, who in ((100, 0), (200, 1), (300, 1), (400, 0))] == [0, 7, 0, 7]
    assert lock.fault(402, 10, 1) == 15 + 7  # until 417, and then for its line
    assert lock.words["transfers"].tolist() == [3, 0, 0]


def test_readers_wait_for_its_line() -> None:
    lock = MmuLock(3, shared=True, transfer=10)
    assert lock.fault(100, 50, 0) == 0  # nobody has had it
    assert lock.fault(200, 50, 1) == 10  # 0 had it; given back at 260, when it is here still
    assert lock.fault(240, 50, 0) == 10 + 10  # 1 had it a moment ago, and is to be expected again before 300
    assert lock.fault(245, 5, 2) == 5 + 10 + 10  # it is on its way to 0 until 250; then it is waited for
    assert lock.words["transfers"].sum() == 5
    again = MmuLock(2, shared=True, transfer=10)
    again.fault(100, 50, 0)
    assert again.fault(170, 50, 1) == 10
    assert again.fault(300, 50, 1) == 0
    assert again.fault(290, 5, 0) == 10  # simulated later: of 300 nothing was paid, and nothing is taken back


def test_the_lock_of_the_process_has_a_line_of_its_own() -> None:
    lock, pool = (MmuLock(2, shared=True, transfer=10, finds=finds) for finds in (True, False))
    assert [each.find(100, 30, 0) for each in (lock, pool)] == [0, 0]
    assert [each.find(200, 30, 1) for each in (lock, pool)] == [10, 0]
    assert [lock.fault(230, 50, 1), lock.find(1000, 30, 1)] == [0, 0]
    assert lock.words["transfers"].tolist() == [0, 0, 1]


def test_within_the_horizon_a_line_counts_as_gone() -> None:
    """Vcpu 0 has run ahead: how far 1 has come since, it cannot know, and takes it that the line was there."""
    for horizon, paid in ((0, 0), (100, 10)):
        lock = MmuLock(2, transfer=10, horizon=horizon)
        assert [lock.fault(at, 20, who) for at, who in ((1000, 0), (1050, 1), (1100, 0))] == [0, 10, 10]
        assert lock.fault(1170, 20, 0) == paid


class Line:
    """A line by its touches: who had it when, in a list; and cycle for cycle when it is on its way."""

    def __init__(self, transfer: int, horizon: int) -> None:
        self.transfer, self.horizon = transfer, horizon
        self.touches: dict[int, int] = {}
        self.queue = Queue()
        self.transfers = 0

    def get(self, at: int, who: int) -> int:
        self.transfers += 1
        return self.queue.hold(who, at, self.transfer) + self.transfer

    def fault(self, at: int, held: int, who: int) -> int:
        others = [when for whose, when in self.touches.items() if whose != who]
        mine, longer, soon = self.touches.get(who), 0, False
        if others and (mine is None or max(others) >= mine - self.horizon):
            longer = self.get(at, who)
            soon = longer > self.transfer or abs(at - max(others)) <= held
        here = at + longer
        last = max((each[1] for each in self.queue.before(here + held)), default=here)
        if soon or last > here:
            longer += self.get(here + held, who)
        self.touches[who] = max(here, here if mine is None else mine)
        if longer > here - at:
            self.touches[who] = max(self.touches[who], at + longer + held)
        return longer


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 30), st.integers(0, 4)), max_size=120),
    st.integers(1, 12),
    st.sampled_from([0, 5, 100]),
)
def test_lines_by_a_twin(asked: list[tuple[int, int, int]], transfer: int, horizon: int) -> None:
    """Each vCPU's own times grow, and vCPUs are as far apart as they like."""
    lock, twin = MmuLock(5, shared=True, transfer=transfer, horizon=horizon), Line(transfer, horizon)
    now = [0] * 5
    for after, held, who in asked:
        now[who] += after
        longer = twin.fault(now[who], held, who)
        assert lock.fault(now[who], held, who) == longer
        now[who] += longer + held
    assert lock.words["transfers"].sum() == twin.transfers


def faults(mode: str, vcpus: int, host: dict[str, Any] | None = None, **keys: Any) -> tuple[Simulation, Outcome]:
    """Have so many vCPUs touch pages of their own, one access each, on a core each."""
    work = {"kind": "sequential", "footprint": PAGES << 12, "accesses": PAGES, "stride": "4KiB", "threads": vcpus}
    pool = {"min": 400, "max": 4000, "batch": 1000}
    cpus = {"cores": vcpus, "memory": "64MiB", "pool": pool, **(host or {})}
    simulation = Simulation(scenario(vm(mode=mode, memory="16MiB", vcpus=vcpus, workload=work, **keys), **cpus))
    return simulation, simulation.run()


def waits(outcome: Outcome) -> dict[str, int]:
    return outcome.vms[0].figures.named("mmu_lock")


@pytest.mark.parametrize("mode", ["ept", "npt"])
def test_faults_of_the_tdp_mmu_do_not_wait_and_those_of_the_older_one_do(mode: str) -> None:
    """What is waited is what exits take longer; the lock lets no more faults through than it can."""
    new, old = faults(mode, 8)[1], faults(mode, 8, tdp_mmu=False)[1]
    assert waits(new) == {"waits": 0, "cycles": 0}
    assert waits(old)["waits"] > 100
    reason = "NPF" if mode == "npt" else "EPT_VIOLATION"
    (count, cycles), (same, before) = (each.vms[0].exits[reason] for each in (old, new))
    assert count == same
    assert cycles - before == waits(old)["cycles"]
    assert old.vms[0].finish - old.vms[0].start > count * HOLD


@pytest.mark.parametrize("mode", ["shadow", "agile"])
def test_faults_of_a_shadow_wait(mode: str) -> None:
    """They hold it for the least part of their time: an exit and a walk of the guest's tables come before."""
    _, outcome = faults(mode, 8, **({"agile": {"threshold": 10_000}} if mode == "agile" else {}))
    assert waits(outcome)["waits"] > 4
    fills = outcome.vms[0].exits["SHADOW_FILL"][0]
    assert outcome.vms[0].finish - outcome.vms[0].start > fills * HOLD


@pytest.mark.parametrize("mode", ["ept", "npt", "shadow", "agile"])
def test_faults_take_longer_for_its_line(mode: str) -> None:
    """By as much as is waited for it; one vCPU has it always, and of two the one that is alone."""
    costs = {"cpu_override": {"cost": {"line_transfer": 150}}}
    own = {"agile": {"threshold": 10_000}} if mode == "agile" else {}
    free, paid = faults(mode, 8, **own)[1], faults(mode, 8, host=costs, **own)[1]
    assert "transfers" not in waits(free)
    assert waits(paid)["transfers"] > PAGES // 2
    before, after = (sum(cycles for _, cycles in each.vms[0].exits.values()) for each in (free, paid))
    assert after - before > waits(paid)["transfers"] * 150 * 0.9
    found = faults(mode, 8, host=costs | {"pool": {"supply": "fault"}}, **own)[1]  # under the process's lock as well
    assert waits(found)["transfers"] > waits(paid)["transfers"] + PAGES // 2
    alone = faults(mode, 1, host=costs, **own)[1]
    assert alone.vms[0].finish == faults(mode, 1, **own)[1].vms[0].finish


@pytest.mark.parametrize("mode", ["native", "vkernel", "paired"])
def test_other_kernels_have_no_such_lock(mode: str) -> None:
    assert not waits(faults(mode, 4)[1])


@pytest.mark.parametrize("mode", ["ept", "shadow"])
def test_with_one_vcpu_nothing_is_counted(mode: str) -> None:
    assert not waits(faults(mode, 1)[1])


def test_who_reads_a_dirty_log_has_it_as_long_as_that_takes() -> None:
    log = {"method": "write-protect", "every": "20us"}
    simulation, outcome = faults("ept", 2, dirty_log=log)
    readings = [each["host_cycles"] for each in rows("dirty", outcome) if each["host_cycles"]]
    held = simulation.vms[0].monitor.lock.words[0]  # type: ignore[attr-defined]
    assert (held["end"] - held["start"])[: held["count"]].tolist() == readings
    assert len(readings) > 5


def test_faults_wait_for_a_host_that_takes_pages() -> None:
    """Faults of the TDP MMU wait for no other fault; a take holds the lock until two vCPUs have left the guest."""
    work = {"kind": "uniform", "footprint": "2MiB", "accesses": 4000, "threads": 2}
    host = {"cores": 2, "memory": "32MiB", "reclaim": {"rate": 200_000}}
    table = vm(mode="ept", memory="8MiB", vcpus=2, workload=work)
    outcome = Simulation(scenario(table, **host)).run()
    assert waits(outcome)["waits"] > 10
    assert waits(outcome)["cycles"] / waits(outcome)["waits"] > HOLD
    assert not waits(Simulation(scenario(table, cores=2, memory="32MiB")).run())["waits"]


def test_tdp_mmu_is_refused_where_it_does_nothing() -> None:
    with pytest.raises(ValueError, match="no effect with vcpus = 1"):
        scenario(vm(tdp_mmu=False))
    with pytest.raises(ValueError, match="no effect in mode shadow, only in ept and npt"):
        scenario(vm(mode="shadow", vcpus=2, tdp_mmu=False))
