"""Do tables with copies on several nodes cost no walk the way to another, and are they paid for, in every mode?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.simulation.test_numa import MODES, REMOTE, SOCKETS, TIER, WORKLOAD, host, references, vm
from vmsim.base.errors import InputError
from vmsim.contracts import Found, Moment
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.host.daemons.looking import looked
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario

SHARED = WORKLOAD | {"threads": 2}


def wide(mode: str, *, tables: str | None = "replicate", **keys: Any) -> dict[str, Any]:
    """Return a VM with a vCPU on each of two sockets, whose tables, but for a guest's own, have copies on both."""
    return vm(mode, vcpus=2, numa={"node": "all"} | ({"tables": tables} if tables else {}), workload=SHARED) | keys


def run(scenario: Scenario) -> Outcome:
    return Simulation(scenario, observers=[check_invariants]).run()


def copies(outcome: Outcome, number: int = 0) -> dict[str, int]:
    return dict(outcome.vms[number].figures.named("table_copies"))


def far(outcome: Outcome, mode: str) -> int:
    """Return the cycles of the way to the other socket for entries of the host's tables."""
    two = mode in ("ept", "npt", "agile", "paired")
    return int(outcome.vms[0].figures.array("node_cycles")[1 if two else 0])


@pytest.mark.parametrize("mode", MODES)
def test_each_vcpu_walks_the_copy_of_its_node(mode):
    once, copied = run(host(wide(mode, tables=None))), run(host(wide(mode)))
    assert far(once, mode) > 0 == far(copied, mode)
    assert copied.ending is None
    counts = copies(copied)
    tables = sum(copied.vms[0].memory[f"table_node_{node}"] for node in (0, 1))
    assert counts["made"] > 2
    assert counts["failed"] == 0
    assert counts["freed"] <= counts["made"] <= tables
    assert counts["writes"] > 500  # a page mapped, or a table made, is an entry of the other copy


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_copies_are_paid_for(mode):
    """An entry of a copy costs a load from the other node, a table made a page and the copying of it."""
    numa = {"node": "all", "memory": 0}  # and one vCPU alone has something to do, on node 0
    what = host(wide(mode, workload=WORKLOAD, numa=numa | {"tables": "replicate"}))
    outcome, costs = run(what), what.cpu.cost
    counts = copies(outcome)
    load = what.cpu.memory.cycles + REMOTE
    made = counts["made"] * (costs.table_page + costs.copy_page)
    assert counts["cycles"] == counts["writes"] * load + made
    once = run(host(wide(mode, workload=WORKLOAD, numa=numa)))
    cause = "guest_fault" if mode == "native" else "exit"
    assert outcome.vms[0].cycles[cause] - once.vms[0].cycles[cause] == counts["cycles"]


def test_a_flag_is_set_in_the_copy_that_is_walked():
    """Both threads touch all pages: each entry's A, and its D, is set once on each node."""
    pages = {"kind": "sequential", "footprint": "1MiB", "stride": "4KiB", "accesses": 4096, "threads": 1}
    one = vm("native", populate="eager", workload=pages | {"writes": 1.0}, numa={"node": 0, "tables": "replicate"})
    assert copies(run(host(one)))["made"] == 0  # they lie where it runs
    once, copied = run(host(wide("native", tables=None))), run(host(wide("native")))
    more = copied.vms[0].counters["ad_updates"] - once.vms[0].counters["ad_updates"]
    assert 0 < more <= once.vms[0].counters["ad_updates"]


def test_a_vm_on_one_node_has_copies_there_of_tables_that_lie_elsewhere():
    near, elsewhere = ({"node": 0, "memory": 1, "tables": tables} for tables in ("replicate", None))
    copied, once = (run(host(vm("ept", numa=numa))) for numa in (near, elsewhere))
    assert references(copied)[1].tolist() == [references(once)[1, 1], 0]
    assert references(copied)[0, 1] == references(once)[0, 1] > 0  # the guest's own lie in its memory
    assert copied.vms[0].memory["table_node_0"] == copied.vms[0].memory["table_node_1"] > 0


def test_a_node_without_frames_gets_no_copies_and_walks_go_to_the_table_itself():
    small = [SOCKETS[0], {"memory": "16KiB", "cpus": 1}]
    outcome = run(host(wide("ept", numa={"node": "all", "memory": 0, "tables": "replicate"}), nodes=small))
    assert outcome.ending is None
    assert copies(outcome)["failed"] > 0
    assert far(outcome, "ept") > 0


@pytest.mark.parametrize("mode", MODES)
def test_all_frames_are_back_at_the_end(mode):
    simulation = Simulation(host(wide(mode), wide(mode), nodes=[*SOCKETS, TIER]), observers=[check_invariants])
    free = simulation.host.free
    assert simulation.run().ending is None
    assert simulation.host.free == free
    assert not simulation.copies.rows.any()


@pytest.mark.parametrize("mode", MODES)
def test_what_vcpus_can_reach_has_copies(mode):
    """At each boundary every table on the way from a vCPU's registers to a page has a copy on each node."""
    seen: list[int] = []

    def look(what: Moment, simulation: Simulation, _: Any) -> None:
        if what in (Moment.SLICE_ENDED, Moment.VM_FINISHED):
            tables = simulation.copies.vms[0]
            simulation.copies.settle()
            seen.append(sum(len(made) == 1 for made in tables.copies.values()))
            assert seen[-1] == len(tables.copies)
            rows = simulation.copies.rows
            assert np.count_nonzero(rows[:, 0]) == len(tables.copies)

    Simulation(host(wide(mode), quantum="50us"), observers=[look, check_invariants]).run()
    assert max(seen) >= 4


def test_only_a_place_for_tables_is_replicate():
    with pytest.raises(InputError, match='expected "local", "interleave" or the number of a node'):
        host(vm(numa={"memory": "replicate"}))
    with pytest.raises(InputError, match='expected "local", "interleave", "replicate", "migrate" or the number'):
        host(vm(numa={"tables": "replicated"}))


@pytest.mark.parametrize("mode", ["ept", "npt", "agile", "vkernel"])
def test_what_a_look_reads_of_copies_is_not_the_vms_to_pay(mode: str) -> None:
    """A daemon that looked at a VM again and again ran up more than the VM's time: it paid, and fell behind further."""
    paid = []

    def look(moment: Moment, simulation: Simulation, vm: Any) -> None:
        if moment is Moment.VM_FINISHED:
            vm.parts.copies.edited(vm.spec.index)
            vm.pages.second.age(0, vm.pages.numbers, clear=False)
            paid.append(looked(simulation.scenario.cpu.cost, vm, Found(np.empty(0, np.int64), 0, 0)))
            paid.append(vm.parts.copies.edited(vm.spec.index))

    Simulation(host(wide(mode)), observers=[look]).run()
    assert paid[0] >= REMOTE
    assert paid[1] == 0
