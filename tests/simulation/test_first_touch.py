"""Are the cycles of first touches told apart from those of later faults, in every mode?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import WRITE, Script, run, scenario, touches, vm
from vmsim.record.tables import rows

# Costs of the yardstick preset, written out: cycles.
FAULT, ZERO, TABLE_PAGE = 1050 + 1000, 340, 295
LEVELS = 4
PAGES = 12
MODES: dict[str, dict[str, Any]] = {
    "native": {"mode": "native"},
    "ept": {"mode": "ept"},
    "npt": {"mode": "npt"},
    "shadow": {"mode": "shadow"},
    "agile": {"mode": "agile"},
    "paired": {"mode": "paired"},
    "vkernel": {"mode": "vkernel"},
}
FIRST = {"EPT_VIOLATION", "NPF", "HOST_FAULT", "TRUE_FAULT", "REFLECT", "PT_READ", "PT_WRITE"}
"""Exits that a script of first touches alone makes for them; the others load roots and fill shadows."""


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_demand_faults_are_first_touches_and_copies_on_write_are_not(mode: str) -> None:
    again = [("fork", 2), *touches(range(5), WRITE)]
    _, outcome = run(scenario(vm(**MODES[mode]), what_if=True), [Script([*touches(range(PAGES), WRITE), *again])])
    (made,) = outcome.vms
    first = PAGES * (FAULT + ZERO) + (LEVELS - 1) * (TABLE_PAGE + ZERO)
    assert made.first_touch["guest_fault"] == first
    assert made.cycles["guest_fault"] >= first + 5 * FAULT  # five copies, and what the fork takes


@pytest.mark.parametrize("mode", MODES)
def test_of_a_run_that_only_touches_pages_first_all_faults_and_exits_for_them_are(mode: str) -> None:
    _, outcome = run(scenario(vm(**MODES[mode]), what_if=True), [Script(touches(range(PAGES), WRITE))])
    (made,) = outcome.vms
    first = made.first_touch
    assert first["guest_fault"] == made.cycles["guest_fault"] > 0
    exits = sum(cycles for reason, (_, cycles) in made.exits.items() if reason in FIRST)
    assert first["exit"] == exits
    assert (exits > 0) == (mode != "native")
    assert {cause for cause, cycles in first.items() if cycles} <= {"guest_fault", "exit", "pool_wait", "host_wait"}
    assert all(cycles <= made.cycles[cause] for cause, cycles in first.items())


@pytest.mark.parametrize("mode", MODES)
def test_after_a_warm_up_that_touches_every_page_there_are_none(mode: str) -> None:
    twice = [*touches(range(PAGES), WRITE), *touches(range(PAGES), WRITE)]
    _, outcome = run(scenario(vm(**MODES[mode]), what_if=True, warmup=PAGES + 1), [Script(twice)])
    (made,) = outcome.vms
    assert not any(made.first_touch.values())


def test_waits_for_the_pool_are_among_them_but_for_those_of_the_boot() -> None:
    keys = vm(pool={"min": 0, "max": 4, "batch": 2})
    _, booted = run(scenario(keys), [Script([("compute", 1)])])
    _, outcome = run(scenario(keys), [Script([("compute", 1), *touches(range(PAGES), WRITE)])])
    (boot,), (made,) = booted.vms, outcome.vms
    assert boot.first_touch["guest_fault"] == 0
    later = made.cycles["pool_wait"] - boot.cycles["pool_wait"]
    assert made.first_touch["pool_wait"] - boot.first_touch["pool_wait"] == later > 0


def test_waits_for_a_core_are_not_among_them() -> None:
    _, outcome = run(scenario(vm("one"), vm("two")), [Script(touches(range(PAGES), WRITE)) for _ in range(2)])
    assert any(made.cycles["pcpu_wait"] for made in outcome.vms)
    assert not any("pcpu_wait" in made.first_touch for made in outcome.vms)
    assert all(made.first_touch["pool_wait"] <= made.cycles["pool_wait"] for made in outcome.vms)


def test_the_tables_have_them_by_cause_and_together() -> None:
    _, outcome = run(scenario(vm()), [Script(touches(range(PAGES), WRITE))])
    (made,) = outcome.vms
    by_cause = {row["cause"]: row["first_touch_cycles"] for row in rows("cycles", outcome)}
    assert {cause: cycles for cause, cycles in by_cause.items() if cycles or cause in made.first_touch} == (
        made.first_touch
    )
    (summary,) = rows("summary", outcome)
    assert summary["first_touch_cycles"] == sum(by_cause.values())
