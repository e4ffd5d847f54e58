"""Do pages go to slower memory when they are cold, and come back when they are hot, whatever maps them?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.simulation.small import BASE, PAGE, Script
from vmsim.contracts import Moment
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.frames.nodes import node_of
from vmsim.host.daemons.numa_balancing.period import ScanPeriod
from vmsim.host.daemons.numa_balancing.promotion import Promotion
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario
from vmsim.workloads import Chunk

MODES = ("native", "ept", "npt", "shadow", "agile", "paired", "vkernel")
FAST, SLOW = {"memory": "2MiB", "cpus": 2}, {"memory": "12MiB", "cycles": 700}
QUICK = {"scan_delay": "20us", "scan_period_min": "200us", "scan_period_max": "2ms", "scan_size": "512KiB"}
TIERING = {"mode": "tiering", **QUICK, "hot_threshold": "1ms"}
ZIPF = {"kind": "zipf", "footprint": "3MiB", "accesses": 8000, "compute": 600, "writes": 0.5, "exponent": 1.2}


def tiered(mode: str = "ept", *, workload: dict[str, Any] | None = None, numa: Any = None, **keys: Any) -> Scenario:
    host = {"cpu": "yardstick", "what_if": True, "nodes": [FAST, SLOW]}
    host |= {"watermarks": {"min": "112KiB", "low": "224KiB", "high": "448KiB"}}
    host |= {"pool": {"min": 4, "max": 32, "batch": 8}}
    given = {key: keys.pop(key) for key in ("vcpus", "host_page", "memory") if key in keys}
    vm = {"name": "a", "memory": "6MiB", "mode": mode, "workload": workload or ZIPF} | given
    return Scenario.from_tables({"host": host | keys, "vm": [vm | ({"numa": numa} if numa else {})]})


def run(scenario: Scenario, *observers: Any) -> Outcome:
    outcome = Simulation(scenario, observers=[check_invariants, *observers]).run()
    assert outcome.ending is None
    return outcome


def walking(outcome: Outcome) -> float:
    """Return how many references of data went to slower memory, by one of all that DRAM served."""
    found = outcome.vms[0].figures.array("node_references").sum(axis=0)
    return float(found[1] / found.sum())


@pytest.mark.parametrize(("mode", "vcpus"), [*((mode, 1) for mode in MODES), ("ept", 2), ("shadow", 2)])
def test_cold_pages_make_room_and_hot_ones_come_back_in_every_mode(mode, vcpus):
    threads = {"threads": 2} if vcpus > 1 else {}
    moving = {"demotion": {"enabled": True, "scale_factor": 0.05}, "numa_balancing": TIERING}
    outcome = run(tiered(mode, vcpus=vcpus, workload=ZIPF | threads, **moving))
    vm = outcome.vms[0]
    demoted, balanced = vm.figures.named("demotion"), vm.figures.named("numa_balancing")
    assert demoted["pgdemote"] > 0
    assert balanced["numa_hint_faults"] >= balanced["pgpromote_success"] > 0
    assert vm.memory["page_node_0"] > 300  # of 512 frames, of which some are kept free
    assert vm.memory["page_node_1"] > 0


def test_pages_that_are_used_lie_in_fast_memory_more_than_without():
    moving = {"demotion": {"enabled": True, "scale_factor": 0.05}, "numa_balancing": TIERING}
    skewed = ZIPF | {"accesses": 20_000}
    still, moved = (run(tiered(workload=skewed, data_caches=True, **each)) for each in ({}, moving))
    assert walking(moved) < 0.7 * walking(still)


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_every_page_that_is_used_soon_after_a_scan_is_promoted(mode):
    few = {"kind": "sequential", "footprint": "64KiB", "stride": "4KiB", "accesses": 20_000, "compute": 500}
    where: list[list[int]] = []

    def look(what: Moment, simulation: Simulation, _: Any) -> None:
        if what is Moment.VM_FINISHED:
            vm = simulation.vms[0]
            numbers = vm.pages.present()
            used = numbers[vm.pages.second.age_each(numbers, clear=False)] if mode == "native" else numbers
            nodes = node_of(simulation.host.zone, vm.pages.frames_each(used))
            where.append(np.bincount(nodes, minlength=2).tolist())

    outcome = run(tiered(mode, workload=few, numa={"memory": 1}, numa_balancing=TIERING), look)
    counts = outcome.vms[0].figures.named("numa_balancing")
    # 16 pages of data; a guest's tables are pages of its host's too: four levels, and the page of zeros.
    assert where[0][0] >= 16
    assert counts["pgpromote_success"] == counts["numa_pages_migrated"] >= 16
    assert counts["numa_hint_faults_local"] == 0


def test_a_page_that_nobody_needs_soon_stays_where_it_is():
    slow = {"kind": "sequential", "footprint": "64KiB", "stride": "4KiB", "accesses": 20_000, "compute": 500}
    cold = TIERING | {"hot_threshold": "1cycles"}
    outcome = run(tiered(workload=slow, numa={"memory": 1}, numa_balancing=cold))
    counts = outcome.vms[0].figures.named("numa_balancing")
    assert counts["numa_hint_faults"] > 100
    assert counts.get("pgpromote_success", 0) <= 4  # the threshold grows to twice what it was


def test_the_second_access_that_is_noticed_moves_a_page_out_of_slow_memory_without_tiers():
    few = {"kind": "sequential", "footprint": "64KiB", "stride": "4KiB", "accesses": 40_000, "compute": 500}
    normal = {"mode": "normal", **QUICK}
    once = run(tiered(workload=few | {"accesses": 1200}, numa={"memory": 1}, numa_balancing=normal))
    often = run(tiered(workload=few, numa={"memory": 1}, numa_balancing=normal))
    first, later = (each.vms[0].figures.named("numa_balancing") for each in (once, often))
    assert first["numa_hint_faults"] > 0
    assert first.get("numa_pages_migrated", 0) == 0
    assert later["numa_pages_migrated"] >= 16
    assert later.get("pgpromote_success", 0) == later["numa_pages_migrated"]


def test_pages_of_another_socket_come_to_that_which_uses_them():
    few = {"kind": "sequential", "footprint": "64KiB", "stride": "4KiB", "accesses": 20_000, "compute": 500}
    sockets = {"nodes": [FAST | {"memory": "8MiB"}] * 2, "remote_cycles": 130}
    outcome = run(
        tiered(workload=few, numa={"node": 0, "memory": 1}, numa_balancing={"mode": "normal", **QUICK}, **sockets)
    )
    counts = outcome.vms[0].figures.named("numa_balancing")
    assert counts["numa_pages_migrated"] >= 16
    assert outcome.vms[0].memory["page_node_0"] >= counts["numa_pages_migrated"]


@dataclass
class Halves(Script):
    """The same steps by each thread, in pages of its own."""

    threads: int = 2

    def footprint(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([BASE]), np.array([64 * PAGE])

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        return Script(self.steps, base=BASE + thread * 32 * PAGE).chunks()


@pytest.mark.parametrize("mode", MODES)
def test_pages_come_to_the_socket_of_the_vcpu_which_uses_them(mode):
    """Of a VM on two sockets, whose pages all lie on the second when they are first touched."""
    sockets = {"nodes": [FAST | {"memory": "8MiB"}] * 2, "remote_cycles": 130}
    balancing = {"mode": "normal", **QUICK}
    scenario = tiered(mode, vcpus=2, numa={"node": "all", "memory": 1}, numa_balancing=balancing, **sockets)
    steps = [step for page in range(32) for step in (("touch", page, 0), ("compute", 20_000))]
    outcome = Simulation(scenario, streams=[Halves(steps * 30)], observers=[check_invariants]).run()
    assert outcome.ending is None
    counts = outcome.vms[0].figures.named("numa_balancing")
    assert 28 <= outcome.vms[0].memory["page_node_0"] <= counts["numa_pages_migrated"] <= 64
    assert counts["numa_hint_faults_local"] >= 32


def test_large_pages_move_as_a_whole_and_in_pieces_where_there_is_no_block():
    nodes = [{"memory": "8MiB", "cpus": 1}, {"memory": "32MiB", "cycles": 700}]
    wide = ZIPF | {"footprint": "10MiB", "accesses": 6000}
    given = {"host_page": "2M", "memory": "16MiB", "nodes": nodes, "workload": wide}
    given["demotion"] = {"enabled": True, "scale_factor": 0.3}
    outcome = run(tiered(**given))
    demoted = outcome.vms[0].figures.named("demotion")["pgdemote"]
    assert demoted >= 512
    assert demoted % 512 == 0


def test_a_node_is_filled_to_its_low_watermark_before_the_next_is_asked():
    # 2 MiB of 14: its share of the watermarks of 28, 56 and 112 frames is 4, 8 and 16.
    free: list[int] = []

    def look(what: Moment, simulation: Simulation, _: Any) -> None:
        if what is Moment.VM_FINISHED:
            free.append(simulation.host.free_on(0))

    run(tiered("native"), look)
    assert free == [8]


def test_a_threshold_follows_how_much_could_be_promoted():
    # By hand from numa_promotion_adjust_threshold: steps of 2/16 of 800, from 1/8 of it to twice.
    node = Promotion(1 << 20, 100, hot=800, limit=100, second=1000, period=1000)
    plenty = 100 + (1 << 18)
    assert node.wants(1, 10**9, plenty + 1, 1)
    assert node.wants(2, 799, plenty, 1)
    assert not node.wants(3, 800, plenty, 1)
    for _ in range(150):
        node.wants(4, 0, plenty, 1)
    assert not node.wants(5, 0, plenty, 1)  # the limit of 100 in a second
    assert node.candidates == 152
    assert not node.wants(1002, 700, plenty, 1)  # 152 > 110: one step less
    assert node.threshold == 700
    assert node.wants(2003, 0, plenty, 1)  # none < 90: one more
    assert node.threshold == 800
    for at in range(12):
        node.wants(3004 + 1001 * at, 10**9, plenty, 1)
    assert node.threshold == 1600


@pytest.mark.parametrize("hits", [True, False])
def test_tiers_are_scanned_as_often_whatever_is_found(hits: bool):
    """Faults of slower memory change no period (task_numa_fault returns before task_numa_placement)."""
    fast = [FAST | {"memory": "12MiB"}, SLOW]
    where = {"numa": {"memory": 1}} if hits else {"nodes": fast}
    balancing = TIERING | {"scan_size": "8MiB", "scan_period_max": "1s"}
    scenario = tiered(workload=ZIPF | {"accesses": 60_000}, numa_balancing=balancing, **where)
    vm, frequency = run(scenario).vms[0], scenario.cpu.frequency
    counts = vm.figures.named("numa_balancing")
    assert (counts["numa_hint_faults"] > 0) is hits
    assert counts["scan_period_cycles"] == max(frequency * 8 // 2560, frequency // 5000)
    assert counts["scan_rounds"] >= (vm.finish - vm.start) // counts["scan_period_cycles"] - 1 > 1


def test_scans_are_more_frequent_where_much_is_remote():
    # By hand from update_task_scan_period: slots of a tenth, a threshold of seven.
    def after(**faults: int) -> int:
        period = ScanPeriod(100, 10_000)
        period.cycles = 1000
        for name, count in faults.items():
            setattr(period, name, count)
        period.end_round()
        return period.cycles

    assert after() == 2000
    assert after(local=5, private=5, failed=1) == 2000
    assert after(local=10, private=10) == 1300  # 10 - 7 slots
    assert after(local=10, shared=10) == 1300
    assert after(remote=10, shared=10) == 300  # 7 slots less
    assert after(local=3, remote=7, private=4, shared=6) == 700  # 7 - 4
    assert after(local=7, remote=3, shared=10) == 1100  # one slot at least


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_damon_pages_out_what_is_cold_and_moves_what_is_hot(mode):
    sampled = {"sample_interval": "20us", "aggr_interval": "200us", "max_nr_regions": 40}
    small = {"workload": ZIPF | {"footprint": "1MiB", "accesses": 3000}}
    out = sampled | {"action": "pageout", "min_age": 2}
    paged = run(tiered(mode, damon=out, swap={"device": "nvme", "size": "16MiB"}, **small)).vms[0].figures
    assert paged.named("swap")["swapped_out"] == paged.named("damon")["applied_pages"] > 0
    hot = sampled | {"action": "migrate_hot", "target": 0, "min_accesses": 1}
    moved = run(tiered(mode, damon=hot, numa={"memory": 1}, **small)).vms[0]
    assert moved.figures.named("damon")["applied_pages"] > 0
    assert moved.memory["page_node_0"] > 0
