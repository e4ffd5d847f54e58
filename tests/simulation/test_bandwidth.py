"""Does memory serve no more than its bandwidth, and do lines wait as a queue of that many cores has them wait?"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Any

import numpy as np
import pytest

from tests.simulation.small import time_adds_up
from vmsim.engine.bandwidth import lasts_of
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario

MODES = ("native", "ept", "npt", "shadow", "agile", "paired", "vkernel")
SLOW = 60 << 20
DATA = {"kind": "uniform", "footprint": "3MiB", "accesses": 40_000, "writes": 0.3, "threads": 2}
QUICK = {"scan_delay": "20us", "scan_period_min": "100us", "scan_period_max": "1ms", "scan_size": "512KiB"}


def host(bandwidth: int | None, *, vms: int = 2, mode: str = "native", **keys: Any) -> Scenario:
    """Return VMs of two vCPUs whose memory is a tier of so much bandwidth."""
    tier = {"memory": "32MiB", "cycles": 700} | ({"bandwidth": bandwidth} if bandwidth else {})
    table = {"memory": "6MiB", "mode": mode, "vcpus": 2, "numa": {"memory": 1}, "workload": DATA}
    given = {
        "cpu": "yardstick",
        "what_if": True,
        "data_caches": True,
        "nodes": [{"memory": "16MiB", "cpus": 4}, tier],
        "watermarks": {"min": "64KiB", "low": "80KiB", "high": "96KiB"},
        "pool": {"min": 4, "max": 64, "batch": 16},
    }
    made = [table | {"name": f"vm{number}"} for number in range(vms)]
    return Scenario.from_tables({"host": given | keys, "vm": made})


def run(scenario: Scenario) -> Outcome:
    return Simulation(scenario, observers=[check_invariants]).run()


def lines(outcome: Outcome, node: int = 1) -> int:
    return sum(int(vm.figures.array("node_references")[:, node].sum()) for vm in outcome.vms)


def queue_by_events(cores: int, think: float, service: float, turns: int) -> float:
    """Return how long a line takes, by cores that each think for a random time and wait for one server in turn."""
    drawn = np.random.default_rng(1).exponential(think, turns + cores) if think else np.zeros(turns + cores)
    asks = [(drawn[core], core) for core in range(cores)]
    asks.sort()
    free, spent, next_think = 0.0, deque[float](), cores
    for _ in range(turns):
        at, core = heappop(asks)
        free = max(free, at) + service
        spent.append(free - at)
        heappush(asks, (free + drawn[next_think], core))
        next_think += 1
    return float(np.mean([*spent][turns // 10 :]))


@pytest.mark.parametrize("cores", [1, 2, 5, 24])
@pytest.mark.parametrize("think", [0.0, 30.0, 150.0, 2000.0])
def test_a_line_takes_what_it_takes_in_a_queue_of_events(cores: int, think: float):
    assert lasts_of(cores, think, 10.0) == pytest.approx(queue_by_events(cores, think, 10.0, 40_000), rel=0.02)


def test_the_limits_of_the_queue_are_exact():
    assert lasts_of(1, 123.0, 7.0) == 7.0  # nobody is before it
    assert lasts_of(9, 0.0, 7.0) == 63.0  # all the others are
    for load in (0.2, 0.5, 0.8):  # very many cores that ask rarely: M/D/1 (Pollaczek and Khinchine)
        found = lasts_of(4000, 4000 * 10 / load, 10.0)
        assert found == pytest.approx(10 + 10 * load / (2 * (1 - load)), rel=0.02)


@pytest.mark.parametrize("mode", MODES)
def test_memory_serves_no_more_than_its_bandwidth(mode: str):
    free, slow = run(host(None, mode=mode)), run(host(SLOW, mode=mode))
    size = 64 * lines(slow)
    assert size / (free.end / free.frequency) > 2 * SLOW
    served = size / (slow.end / slow.frequency)
    assert 0.85 * SLOW < served < 1.05 * SLOW
    for vm in slow.vms:  # what is counted as waiting is what lines took longer, to the cycle
        count = vm.figures.array("node_references")
        beyond = int(vm.figures.array("node_cycles").sum()) - (700 - slow.latency[3]) * int(count[:, 1].sum())
        assert vm.figures.named("node_waits") == {"node_1": beyond}
        assert beyond > 0


def test_one_core_alone_waits_for_nobody():
    alone = host(SLOW, vms=1).replace(**{"vm.vcpus": 1, "vm.workload.threads": 1})
    nodes = [dict(each) for each in alone.model_dump()["host"]["nodes"]]
    nodes[1]["bandwidth"] = "1GiB"
    outcome = run(alone.replace(**{"host.nodes": nodes}))
    assert outcome.vms[0].figures.named("node_waits") == {"node_1": 0}
    slow = run(alone)  # a line of it takes longer than a load does
    waits = slow.vms[0].figures.named("node_waits")["node_1"]
    each = 64 * slow.frequency / SLOW - 700
    assert waits == pytest.approx(each * lines(slow), rel=0.01)
    assert time_adds_up(slow)


def test_plenty_of_bandwidth_changes_nothing():
    free, plenty = run(host(None)), run(host(1 << 50))
    assert free.end == plenty.end
    assert [vm.cycles for vm in free.vms] == [vm.cycles for vm in plenty.vms]
    assert "node_waits" not in {row.component for row in free.vms[0].figures.rows()}


def test_pages_that_are_copied_use_bandwidth_too():
    balancing = {"mode": "tiering", **QUICK, "hot_threshold": "1ms", "promote_rate_limit": "1GiB"}
    made = [Simulation(host(100 << 20, numa_balancing=balancing)), Simulation(host(100 << 20))]
    outcomes = [each.run() for each in made]
    moved = sum(vm.figures.named("numa_balancing")["pgpromote_success"] for vm in outcomes[0].vms)
    assert moved > 500
    # each was read from the tier and written to the socket
    simulation = Simulation(host(100 << 20))
    pfns = np.flatnonzero(np.arange(simulation.host.size) >= (16 << 20) // 4096)[:40]
    simulation.host.note_copies(pfns, 0)
    assert simulation.host.copied == [40, 40]


def test_a_line_waits_longer_while_pages_are_copied():
    ends = []
    for copies in (0, 400):
        simulation = Simulation(host(100 << 20))
        env, memory = simulation.env, simulation.host

        def copying(env: Any = env, memory: Any = memory, copies: int = copies) -> Any:
            while True:
                yield env.background(500_000)
                memory.copied[1] += copies

        env.process(copying())
        ends.append(simulation.run().end)
    assert 1.5 * ends[0] < ends[1] < 2.2 * ends[0]  # copies have half of the bandwidth at most
