"""Do whole runs under agile paging keep the invariants, move tables both ways, and trap less than a shadow does?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.simulation.small import BASE, PAGE, run, scenario, time_adds_up, vm
from vmsim.base.errors import InputError
from vmsim.engine.run import simulate
from vmsim.record.outcome import VmOutcome
from vmsim.scenario import Scenario

CHURN = {"kind": "churn", "footprint": 64 * PAGE, "base": BASE, "burst": 8 * PAGE, "rounds": 40, "work": 50}
PAUSING = CHURN | {"rounds": 12, "work": 20_000}
FORKS = {"kind": "forkwait", "footprint": 16 * PAGE, "base": BASE, "forks": 12}


def of(mode: str, workload: dict[str, object], **keys: Any) -> Scenario:
    """Return a VM whose workload is not that of `small.vm`."""
    table = vm(mode=mode, memory="24MiB", **keys) | {"workload": workload}
    return scenario(table, memory="48MiB", quantum="5us")


def outcome(what: Scenario, *, check: bool = False) -> VmOutcome:
    made = run(what, every=200_000)[1] if check else simulate(what)
    assert time_adds_up(made)
    assert made.vms[0].finished
    return made.vms[0]


@pytest.mark.parametrize("back", ["clean", "all"])
@pytest.mark.parametrize("workload", [PAUSING, FORKS], ids=["churn", "forkwait"])
def test_tables_move_both_ways_under_the_checker(workload: dict[str, object], back: str) -> None:
    made = outcome(of("agile", workload, agile={"interval": "10us", "back": back, "threshold": 3}), check=True)
    assert made.figures.named("shadow")["to_nested"] > 0
    assert made.figures.named("shadow")["to_shadow"] > 0
    assert made.exits["AGILE_SCAN"][0] > 1
    assert back == "all" or made.counters["nested_walks"] > 0  # all: none need last until it is walked through


def test_a_guest_that_edits_its_tables_traps_less_than_under_a_shadow() -> None:
    agile, shadow, nested = (outcome(of(mode, CHURN)) for mode in ("agile", "shadow", "ept"))
    assert sum(count for count, _ in agile.exits.values()) < sum(count for count, _ in shadow.exits.values()) / 10
    assert agile.guest_faults == shadow.guest_faults == nested.guest_faults
    assert agile.finish - agile.start < shadow.finish - shadow.start


def test_a_guest_that_leaves_its_tables_alone_is_walked_in_one_dimension() -> None:
    workload = {"kind": "uniform", "footprint": 4096 * PAGE, "base": BASE, "accesses": 24_000}
    agile, native, nested = (
        outcome(of(mode, workload, populate="eager").replace(warmup="50%")) for mode in ("agile", "native", "ept")
    )
    assert agile.counters["nested_walks"] == 0 < nested.counters["nested_walks"]
    assert agile.cycles["walk_guest"] == pytest.approx(native.cycles["walk_guest"], rel=0.25)


def test_the_identity_of_a_scenario_has_the_keys_of_its_mode_alone() -> None:
    agile, shadow = of("agile", CHURN), of("shadow", CHURN)
    assert json.loads(agile.canonical())["vms"][0]["agile"]["interval"] == 2_000_000_000  # a second of the yardstick
    assert "agile" not in shadow.canonical().replace('"mode":"agile"', "")
    same = agile.replace(**{"vm.agile.interval": "1000ms"})
    assert same.canonical() == agile.canonical()
    for key, value in (("agile.threshold", 4), ("agile.root_cache", 1), ("shadow.limit", 99), ("agile.back", "all")):
        assert agile.replace(**{f"vm.{key}": value}).canonical() != agile.canonical()
        if key != "shadow.limit":
            with pytest.raises(InputError, match=r"no effect in mode shadow, only in agile"):
                shadow.replace(**{f"vm.{key}": value})


def test_a_cpu_without_a_second_dimension_and_an_interval_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="needs EPT or nested paging, which p4-672 does not have"):
        of("agile", CHURN).replace(**{"host.cpu": "p4-672"})
    assert of("agile", CHURN).replace(**{"host.cpu": "p4-672", "host.what_if": True}).vms[0].mode == "agile"
    with pytest.raises(InputError, match="less than one cycle"):
        of("agile", CHURN).replace(**{"vm.agile.interval": "0s"})
    with pytest.raises(InputError, match="threshold"):
        of("agile", CHURN).replace(**{"vm.agile.threshold": 0})
