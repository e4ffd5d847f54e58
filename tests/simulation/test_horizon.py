"""Does it matter how far a vCPU may run ahead of what others do to it, and does it run no farther?"""

from __future__ import annotations

from typing import Any

import pytest
import simpy

from tests.golden.scenarios import MODES, all_scenarios
from tests.simulation.small import PAGE, run, scenario, vm
from vmsim.engine.simulation import Simulation
from vmsim.engine.vcpu import Vcpu
from vmsim.record.tables import rows
from vmsim.scenario import Scenario

KINDS = ("workload", "data", "mixed", "pool", "one-core")
TOLERANCE = 0.01


def summary(what: Scenario) -> list[dict[str, Any]]:
    return rows("summary", Simulation(what).run())


@pytest.mark.parametrize("kind", KINDS)
def test_half_the_horizon_moves_no_figure_of_the_summary_by_more_than_1_percent(kind: str) -> None:
    """Several VMs in each, in every mode.

    One figure is a level at an instant, that of the pool when the VM ends: it can differ by the pages that are taken
    within half a horizon. Each costs at least what the monitor does with it.
    """
    for name, given in all_scenarios():
        if name.split("/")[0] != kind:
            continue
        whole = Scenario.model_validate(given)
        half = whole.replace(**{"host.horizon": f"{whole.horizon // 2} cycles"})
        cost = whole.cpu.cost
        pages = whole.horizon // 2 // (cost.violation_pool + cost.violation_entry + cost.violation_rmap)
        for before, after in zip(summary(whole), summary(half), strict=True):
            for figure, value in before.items():
                if figure == "pool_frames":
                    assert abs(after[figure] - value) <= pages, name
                elif isinstance(value, int | float):
                    assert abs(after[figure] - value) <= TOLERANCE * abs(value), (name, before["vm"], figure)
                else:
                    assert after[figure] == value, (name, figure)


@pytest.mark.parametrize("mode", ["native", "ept", "shadow"])
def test_half_the_horizon_moves_no_time_of_vcpus_that_shoot_one_another_down(mode: str) -> None:
    """Each takes what others have sent before it edits tables itself: it would flush all of a space else.

    Figures of a few dozens, such as misses of the nested TLB, may move by more.
    """
    whole = next(Scenario.model_validate(given) for name, given in all_scenarios() if name == f"vcpus/{mode}")
    half = whole.replace(**{"host.horizon": f"{whole.horizon // 2} cycles"})
    for before, after in zip(summary(whole), summary(half), strict=True):
        for figure in ("total_cycles", "management_cycles", "guest_faults", "exits"):
            assert after[figure] == pytest.approx(before[figure], rel=TOLERANCE), figure


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "paired"])
def test_a_vcpu_runs_no_farther_ahead_than_the_horizon_and_a_fault(mode: str) -> None:
    """A fault that has begun is handled to its end, and maps a page, four tables, and backs each of the five."""
    workload = {"kind": "uniform", "footprint": 500 * PAGE, "accesses": 3000}
    cpu = {"what_if": True} | ({"cpu": "zen2"} if mode == "npt" else {"cpu": "skylake-x"})
    tables = [vm(f"vm{number}", mode=mode, memory="8MiB", workload=workload) for number in range(2)]
    what = scenario(*tables, pool={"min": 4, "max": 999, "batch": 999}, cores=2, memory="32MiB", horizon="2us", **cpu)
    cost = what.cpu.cost
    fault = 5 * sum(
        (
            *(
                cost.fault_delivery,
                cost.guest_fault,
                cost.zero_page,
                cost.table_page,
                cost.page_fault_exit,
                cost.inject,
            ),
            *(cost.vm_exit, cost.vm_entry, cost.violation_walk, 5 * cost.violation_pool, 4 * cost.table_page),
            *(cost.violation_entry, cost.violation_rmap, cost.violation_resume, cost.decode, cost.emulate),
            *(cost.vkernel_call, cost.vkernel_reflect, cost.vkernel_remove, 24 * cost.guest_walk_level),
        )
    )
    simulation = Simulation(what)
    most = 0
    for each in simulation.vms:

        def settled(vcpu: Vcpu = each.vcpu, settle: Any = each.vcpu.settle) -> simpy.Event:
            nonlocal most
            most = max(most, vcpu.owed)
            return settle()

        each.vcpu.settle = settled  # type: ignore[method-assign]
    assert simulation.run().ending is None
    assert what.horizon <= most <= what.horizon + fault


def test_no_time_slice_ends_at_the_horizon() -> None:
    """What a core is given to and when is the same where nothing else depends on the horizon."""
    workload = {"kind": "uniform", "footprint": 64 * PAGE, "accesses": 60_000, "compute": 30}
    vms = [vm(f"vm{number}", mode="native", populate="eager", workload=workload) for number in range(3)]
    seen = []
    for horizon in ("20us", "1us"):
        simulation, outcome = run(scenario(*vms, quantum="50us", horizon=horizon))
        seen.append([(each.finish, each.waits["pcpu_wait"], each.cycles["switch"]) for each in outcome.vms])
        assert simulation.vms[0].vcpu.waits["pcpu_wait"] > 3
    assert seen[0] == seen[1]
