"""What does a host with an out-of-order window hide, and does it change anything but time?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import scenario, time_adds_up, vm
from tests.simulation.test_contract import ALL
from vmsim.base.errors import InputError
from vmsim.engine.simulation import Simulation
from vmsim.record.outcome import Outcome
from vmsim.record.tables import rows
from vmsim.scenario import Scenario

CHURN = {"kind": "churn", "footprint": "256KiB", "rounds": 4, "burst": "64KiB"}
UNIFORM = {"kind": "uniform", "footprint": "2MiB", "accesses": 1500, "writes": 0.3}
TOLD = ("accesses", "l1_tlb_misses", "l2_tlb_misses", "walks", "walk_refs", "walk_guest_cycles", "walk_nested_cycles")


def what(overlap: bool, *vms: dict[str, Any], **keys: Any) -> Scenario:
    given = {"cpu": "skylake-x", "what_if": True, "data_caches": True, "memory": "64MiB", "overlap": overlap}
    return scenario(*vms, **given | keys)


def run(scenario: Scenario, **keys: Any) -> Outcome:
    return Simulation(scenario, **keys).run()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("workload", [UNIFORM, CHURN], ids=["uniform", "churn"])
def test_walks_stay_the_same_and_time_is_the_sum_less_what_went_on_at_once(name: str, workload: dict[str, Any]) -> None:
    """In every mode; agile paging chooses by the clock."""
    table = vm(memory="8MiB", **{**ALL[name], "agile": {"interval": "1s"}}) | {"workload": workload}
    serial, at_once, by_hand = (
        run(what(overlap, table), serve=serve) for overlap, serve in ((False, True), (True, True), (True, False))
    )
    (before,), (after,) = (rows("summary", each) for each in (serial, at_once))
    assert {key: after[key] for key in TOLD} == {key: before[key] for key in TOLD}
    assert time_adds_up(at_once)
    one, other = (dict(each.vms[0].cycles) for each in (serial, at_once))
    hidden = other.pop("overlap")
    assert -sum(one[cause] for cause in ("compute", "data", "l2_tlb", "walk_guest", "walk_nested")) < hidden < 0
    assert {cause for cause in one if one[cause] != other[cause]} <= {"pool_wait"}  # for what others do meanwhile
    assert rows("summary", by_hand) == rows("summary", at_once)


def test_several_vcpus_have_a_window_each() -> None:
    workload = {**UNIFORM, "threads": 2, "accesses": 3000}
    table = vm(memory="8MiB", vcpus=2, workload=workload, populate="eager")
    one, two = (run(what(True, table, cores=cores)).vms[0] for cores in (1, 2))
    alone = run(what(True, vm(memory="8MiB", workload={**UNIFORM, "accesses": 1500}, populate="eager"))).vms[0]
    assert two.cycles["overlap"] == pytest.approx(2 * alone.cycles["overlap"], rel=0.1)
    assert two.finish - two.start < 0.6 * (one.finish - one.start)


@pytest.mark.parametrize("keys", [{"kind": "chase", "stride": "4KiB"}, {"dependent": True}])
def test_accesses_that_depend_on_one_another_take_what_they_took(keys: dict[str, Any]) -> None:
    table = vm(memory="8MiB", workload={**UNIFORM, **keys})
    serial, at_once = (run(what(overlap, table)).vms[0] for overlap in (False, True))
    assert at_once.cycles == serial.cycles | {"overlap": 0}


def test_how_far_a_vcpu_runs_ahead_does_not_matter() -> None:
    """A run that ends for that alone leaves what is under way as it is."""
    table = vm(memory="8MiB", workload=UNIFORM, populate="eager")
    far, near = (run(what(True, table, horizon=each)).vms[0] for each in ("20us", "100ns"))
    assert near.cycles == far.cycles


def test_what_is_not_known_of_a_cpu_has_to_be_said() -> None:
    toml = '[host]\ncpu = "yardstick"\noverlap = true\n[[vm]]\nname = "a"\nworkload = { kind = "uniform" }\n'
    with pytest.raises(InputError, match=r"host\.overlap[^$]*yardstick has under way is not known; set window"):
        Scenario.from_toml(toml)
    what(True, vm(), cpu="yardstick", cpu_override={"window": 100, "fill_buffers": 8})


def test_without_it_what_decides_results_is_as_it_was() -> None:
    """The figures of the CPU and of the workload that it alone reads are no part of it."""
    told = what(False, vm(workload={**UNIFORM, "instructions": 9})).canonical()
    assert told == what(False, vm(workload={**UNIFORM, "dependent": True})).canonical()
    assert all(key not in told for key in ("overlap", "window", "fill_buffers", "instructions", "dependent"))
    assert all(key in what(True, vm()).canonical() for key in ('"overlap"', '"window"', '"instructions"'))
