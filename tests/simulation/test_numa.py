"""Where do VMs run on a host with nodes, where does their memory lie, and what does the way to it cost?"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from vmsim.base.errors import InputError
from vmsim.engine.check.host import check_invariants
from vmsim.engine.hardware import Hardware
from vmsim.engine.nodes import nodes_of
from vmsim.engine.simulation import Simulation
from vmsim.frames.stack import NodeStack
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario

MODES = ("native", "ept", "npt", "shadow", "agile", "paired", "vkernel")
SOCKETS = [{"memory": "32MiB", "cpus": 1}, {"memory": "32MiB", "cpus": 1}]
TIER = {"memory": "32MiB", "cycles": 700}
REMOTE = 130
WORKLOAD = {"kind": "uniform", "footprint": "2MiB", "accesses": 3000, "writes": 0.5}


def vm(mode: str = "ept", **keys: Any) -> dict[str, Any]:
    return {"name": "a", "memory": "8MiB", "mode": mode, "workload": WORKLOAD} | keys


def host(*vms: dict[str, Any], nodes: list[dict[str, Any]] | None = None, **keys: Any) -> Scenario:
    given = {"cpu": "yardstick", "what_if": True, "nodes": nodes or SOCKETS, "remote_cycles": REMOTE}
    given |= {"watermarks": {"min": "64KiB", "low": "80KiB", "high": "96KiB"}}
    given |= {"pool": {"min": 4, "max": 64, "batch": 16}}
    tables = [{**each, "name": f"{each['name']}{number}"} for number, each in enumerate(vms or [vm()])]
    return Scenario.from_tables({"host": given | keys, "vm": tables})


def run(scenario: Scenario) -> Outcome:
    return Simulation(scenario, observers=[check_invariants]).run()


def references(outcome: Outcome, number: int = 0) -> np.ndarray:
    """Return what DRAM served of a VM by dimension (guest, nested, data) and node."""
    return outcome.vms[number].figures.array("node_references")


def walking(outcome: Outcome) -> int:
    return sum(outcome.vms[0].cycles[cause] for cause in ("walk_guest", "walk_nested"))


@pytest.mark.parametrize("mode", MODES)
def test_a_reference_to_memory_of_another_socket_takes_longer_by_the_way_to_it(mode):
    near, far = (run(host(vm(mode, numa={"node": 1, "memory": node}))) for node in (1, 0))
    assert references(near)[:, 0].sum() == 0 == references(far)[:, 1].sum()
    assert references(near)[:, 1].tolist() == references(far)[:, 0].tolist()
    count = int(references(far)[:2].sum())
    assert count == far.vms[0].refs[..., 3].sum() > 60
    assert walking(far) - walking(near) == REMOTE * count


@pytest.mark.parametrize("mode", MODES)
def test_pages_lie_where_their_vm_runs_or_where_it_says(mode):
    numas = ({}, {}, {"memory": "interleave"}, {"memory": 2})
    outcome = run(host(*(vm(mode, numa=numa) for numa in numas), nodes=[*SOCKETS, TIER]))
    found = [[each.memory[f"page_node_{node}"] for node in range(3)] for each in outcome.vms]
    total = found[0][0]
    assert total > 511
    assert found[0] == [total, 0, 0]
    assert found[1][::2] == [0, 0]
    halves = [found[2][node] + outcome.vms[2].memory[f"table_node_{node}"] for node in range(3)]
    assert abs(halves[0] - halves[1]) <= 2  # a pair of tables is one block
    assert halves[2] == 0
    assert found[3][:2] == [0, 0]
    slow = outcome.vms[3].figures.array("node_cycles").sum()
    usual = host().cpu.memory.cycles
    assert slow == (700 - usual) * references(outcome, 3)[:, 2].sum()


def test_data_is_served_by_its_node_too():
    near, far = (run(host(vm(numa={"memory": node}), data_caches=True)) for node in (0, 1))
    count = int(references(far)[2, 1])
    assert count == references(near)[2, 0] == far.vms[0].data[3] > 500
    assert far.vms[0].cycles["data"] - near.vms[0].cycles["data"] == REMOTE * count


@pytest.mark.parametrize(("mode", "populate"), [("native", "lazy"), ("ept", "eager"), ("npt", "eager")])
def test_tables_of_the_host_lie_apart_from_pages_where_they_are_to(mode, populate):
    outcome = run(host(vm(mode, populate=populate, numa={"tables": 1})))
    memory = outcome.vms[0].memory
    assert memory["page_node_1"] == 0 == memory["table_node_0"]
    assert memory["table_node_1"] >= 4
    dimension = 0 if mode == "native" else 1
    assert references(outcome)[dimension, 0] == 0 < references(outcome)[dimension, 1]


def test_a_full_node_is_passed_over_for_the_nearest():
    small = [{"memory": "1MiB", "cpus": 1}, {"memory": "16MiB", "cpus": 1}, {"memory": "16MiB", "cycles": 500}]
    pages = run(host(vm("native"), nodes=small)).vms[0].memory
    assert pages["page_node_0"] + pages["table_node_0"] > 250
    assert pages["page_node_1"] > 250
    assert pages["page_node_2"] == 0
    pages = run(host(vm("native"), nodes=small, remote_cycles=900)).vms[0].memory
    assert (pages["page_node_1"], pages["page_node_2"] > 250) == (0, True)


def test_nodes_are_asked_by_what_a_load_takes():
    usual = host().cpu.memory.cycles
    tiers = [{"memory": "4KiB", "cycles": usual + 200}, {"memory": "4KiB", "cycles": usual + 50}]
    nodes = nodes_of(host(nodes=[*SOCKETS, *tiers]))
    assert nodes.asked == [[0, 3, 1, 2], [1, 3, 0, 2], [2, 0, 1, 3], [3, 0, 1, 2]]
    assert (nodes.sizes, nodes.turns) == ([8192, 8192, 1, 1], 2)


def test_distances_say_how_far_nodes_are_and_what_a_load_takes():
    usual = host().cpu.memory.cycles
    matrix = [[10, 21, 30], [20, 10, 40], [30, 40, 10]]
    scenario = host(nodes=[*SOCKETS, {"memory": "4KiB"}], distances=matrix, remote_cycles=None)
    # ACPI: the relative distance, 10 for what is local. From each socket to each node.
    loads = [[usual, usual * 21 // 10, usual * 3], [usual * 2, usual, usual * 4]]
    made = Hardware.of(scenario.cpu, cores=2, frames=1, nodes=scenario.host.nodes, distances=scenario.host.distances)
    assert made.cores["node_extra"][:, :3].tolist() == [[each - usual for each in row] for row in loads]
    assert nodes_of(scenario).asked == [[0, 1, 2], [1, 0, 2], [2, 0, 1]]
    assert Scenario.from_toml(scenario.to_toml()) == scenario


def test_vms_wait_for_cores_of_their_node_alone_and_share_the_llc_of_its_socket():
    busy = vm(workload=WORKLOAD | {"compute": 1000})
    apart = run(host(busy, busy)).vms
    assert [each.cycles["pcpu_wait"] for each in apart] == [0, 0]
    together = run(host(busy, {**busy, "numa": {"node": 0}})).vms
    assert all(each.cycles["pcpu_wait"] > 1_000_000 for each in together)
    scenario = host(nodes=[{"memory": "8MiB", "cpus": 2}, {"memory": "8MiB", "cpus": 1}])
    made = Hardware.of(scenario.cpu, cores=3, frames=4096, nodes=scenario.host.nodes, remote_cycles=9)
    llcs = [made.llc_of(core) for core in range(3)]
    assert llcs[0] is llcs[1] is not llcs[2]
    assert made.cores["node_extra"][:, :2].tolist() == [[0, 9], [0, 9], [9, 0]]
    assert made.cores["node_ends"][2, :2].tolist() == [8 << 20, 16 << 20]


def test_a_host_has_what_its_nodes_have():
    scenario = host(nodes=[*SOCKETS, TIER])
    assert (scenario.host.memory, scenario.host.cores) == (96 << 20, 2)
    assert Scenario.from_toml(scenario.to_toml()) == scenario
    assert Scenario.from_tables({"vm": [vm()]}).replace(**{"host.nodes": [TIER | {"cpus": 3}]}).host.cores == 3
    two = host()
    assert two.replace(**{"host.nodes": [*SOCKETS, TIER]}).canonical() == scenario.canonical()
    assert two.canonical() != scenario.canonical()


APART = {"kind": "sequential", "footprint": "2MiB", "stride": "4KiB", "accesses": 512, "threads": 2}


@pytest.mark.parametrize("supply", ["fault", "grant"])
@pytest.mark.parametrize("mode", MODES)
def test_pages_lie_where_the_vcpu_runs_that_touches_them_first(mode, supply):
    """Of a VM on two sockets each thread touches half of the pages; those of a pool are of the sockets in turn."""
    pool = {"supply": "fault"} if supply == "fault" else {"min": 4, "max": 64, "batch": 16}
    tables = vm(mode, vcpus=2, numa={"node": "all"}, workload=APART)
    outcome = run(host(tables, pool=pool, data_caches=True))
    found, first = outcome.vms[0].memory, outcome.vms[0].figures
    if supply == "fault" or mode == "native":
        assert references(outcome)[2].tolist() == [256, 256]
        assert first.array("node_cycles")[2] == 0  # nobody went to the other socket for data
        assert min(found["page_node_0"], found["page_node_1"]) >= 256
    else:
        assert abs(found["page_node_0"] - found["page_node_1"]) < 10
        assert first.array("node_cycles")[2] > 50 * REMOTE


def test_each_vcpu_runs_on_its_socket():
    four = [{"memory": "16MiB", "cpus": 2}] * 4
    scenario = host(vm("native", vcpus=6, numa={"node": "all"}), nodes=four)
    assert [scenario.vms[0].placement.node_of(number, 6) for number in range(6)] == [0, 0, 1, 2, 2, 3]
    simulation = Simulation(scenario)
    assert [vcpu.scheduler for vcpu in simulation.vms[0].vcpus] == [
        simulation.schedulers[node] for node in (0, 0, 1, 2, 2, 3)
    ]


@pytest.mark.parametrize("memory", ["local", "interleave"])
@pytest.mark.parametrize("mode", MODES)
def test_a_vm_on_some_sockets_has_nothing_on_others(mode, memory):
    three = [*SOCKETS, SOCKETS[0]]
    numa = {"node": [0, 2], "memory": memory, "tables": "replicate"}
    what = host(vm(mode, vcpus=4, numa=numa, workload=APART | {"threads": 4}), nodes=three)
    simulation = Simulation(what, observers=[check_invariants])
    schedulers = [simulation.schedulers[node] for node in (0, 0, 2, 2)]
    assert [vcpu.scheduler for vcpu in simulation.vms[0].vcpus] == schedulers
    outcome = simulation.run()
    found = outcome.vms[0].memory
    assert outcome.ending is None
    assert found["page_node_1"] == found["table_node_1"] == 0 < found["table_node_0"] <= found["table_node_2"] + 6
    assert min(found["page_node_0"], found["page_node_2"]) > 100
    assert references(outcome)[:, 1].sum() == 0


def test_all_sockets_by_their_numbers_are_all_of_them():
    said = [host(vm(vcpus=2, numa={"node": node})) for node in ("all", [0, 1])]
    assert said[0].canonical() == said[1].canonical()
    assert host(vm(numa={"node": [1]})).canonical() == host(vm(numa={"node": 1})).canonical()
    three = [host(vm(vcpus=2, numa={"node": node}), nodes=[*SOCKETS, SOCKETS[0]]) for node in ([0, 1], [0, 2])]
    assert three[0].canonical() != three[1].canonical()
    assert Scenario.from_toml(three[1].to_toml()) == three[1]


def test_frames_that_come_back_are_handed_out_on_their_own_node():
    stack = NodeStack(np.array([100, 200]))
    stack.put([5, 7])
    stack.put_back([150, 9, 160])
    assert (len(stack), sorted(stack.held())) == (3, [5, 7, 9, 150, 160])
    stack.turn(1)
    assert stack.take(2) == [150, 160]
    stack.put([151])
    stack.turn(0)
    assert stack.take(1) == [9]
    stack.gather()
    assert stack.take(3) == [5, 7, 151]


def test_a_program_at_its_limit_has_frames_of_both_nodes():
    """Those that stand ready for the other vCPU are drained first, as Linux's lists of a CPU are."""
    tight = vm("native", vcpus=2, memory="2100KiB", numa={"node": "all"}, workload=APART)
    assert run(host(tight)).ending is None


def test_a_vm_on_all_sockets_is_another_experiment_and_others_are_as_before():
    assert host(vm(numa={"node": 0})).canonical() != host(vm(vcpus=2, numa={"node": "all"})).canonical()
    assert host(vm(numa={"node": 0})).vms[0].placement.canonical == (0, 0, 0)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"memory": "1GiB"}, "host.memory: found 1GiB, but the nodes have 64MiB together"),
        ({"cores": 3}, "host.cores: found 3, but the nodes have 2 together"),
        ({"remote_cycles": None}, "host.remote_cycles: this key is missing"),
        ({"nodes": [SOCKETS[0], TIER]}, "host.remote_cycles: there is one socket only"),
        ({"nodes": [TIER, *SOCKETS]}, "a node without CPUs comes before one that has some"),
        ({"nodes": [TIER]}, "none of the nodes has CPUs"),
        ({"nodes": [*SOCKETS, {"memory": "5000B"}]}, "not a whole number of 4KiB pages"),
        ({"distances": [[10, 20]], "remote_cycles": None}, "expected 2 rows of 2 numbers"),
        ({"distances": [[10, 9], [20, 10]], "remote_cycles": None}, "found 9 from node 0, expected 10 to 254"),
        ({"distances": [[10, 20], [20, 11]], "remote_cycles": None}, "found 11 from node 1 to itself, expected 10"),
        ({"distances": [[10, 20], [20, 10]]}, "host.remote_cycles: the distances say how far the nodes are"),
        ({"demotion": {"enabled": True}}, "host.demotion.enabled: there is no slower memory to go to"),
        ({"numa_balancing": {"mode": "tiering"}}, "host.numa_balancing.mode: there is no slower memory"),
        ({"numa_balancing": {"hot_threshold": "2s"}}, "it has no effect without numa_balancing.mode"),
    ],
)
def test_nodes_that_cannot_be_are_told(keys, said):
    with pytest.raises(InputError, match=re.escape(said)):
        host(**keys)


@pytest.mark.parametrize(
    ("numa", "said"),
    [
        ({"node": 2}, "numa.node (a0): node 2 has no CPUs"),
        ({"node": "all"}, 'numa.node (a0): found "all", and vcpus (1) < sockets (2)'),
        ({"node": [0, 2]}, "numa.node (a0): found 2 among the nodes, and those with CPUs are [0, 1]"),
        ({"node": [1, 0]}, "numa.node (a0): found [1, 0], expected each node once, in ascending order"),
        ({"node": [0, 1]}, "numa.node (a0): found 2 nodes, and vcpus (1) < nodes"),
        ({"memory": 3}, "numa.memory (a0): found 3, and the nodes are 0 to 2"),
        ({"memory": "locale"}, 'expected "local", "interleave" or the number of a node'),
        ({"tables": 1}, "numa.tables (a0): the monitor makes tables of pages of its pool"),
    ],
)
def test_places_that_cannot_be_are_told(numa, said):
    with pytest.raises(InputError, match=re.escape(said)):
        host(vm(numa=numa), nodes=[*SOCKETS, TIER])


def test_a_place_needs_nodes():
    with pytest.raises(InputError, match=r"numa\.node \(a\): the host has no nodes"):
        Scenario.from_tables({"vm": [vm(numa={"node": 0})]})
