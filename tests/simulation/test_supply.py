"""What does a page cost that a host faults in for a monitor without a pool, and does that work in every mode?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import PAGE, WRITE, Script, run, scenario, time_adds_up, touches, vm
from tests.simulation.test_contract import ALL
from vmsim.base.errors import InputError
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario

FAULT: dict[str, Any] = {"supply": "fault"}
GUESTS = {name: keys for name, keys in ALL.items() if name != "native" and keys.get("paired", {}).get("guest", True)}

# Costs of the yardstick preset, written out: cycles.
EXIT, WALK, ENTRY, RMAP, RESUME = 1000, 800, 400, 400, 1132
HOST_FAULT, HOST_ZERO, LIST, TABLE_PAGE, ZERO = 2754, 1438, 295, 295, 340
KERNEL = EXIT + WALK + ENTRY + RMAP + RESUME


def moved(outcome: Outcome) -> set[str]:
    """Return the VMs that pages were granted to."""
    return {each.vm for each in outcome.transfers if each.what == "grant"}


@pytest.mark.parametrize("mode", ["ept", "npt"])
def test_a_violation_pays_for_the_hosts_page_fault_and_for_clearing(mode: str) -> None:
    _, outcome = run(scenario(vm(mode=mode), pool=FAULT), [Script(touches(range(20)))])
    (figures,) = outcome.vms
    violations = 20 + 4  # and the tables of the guest
    tables = 2 + 2  # of each level below the root one, but two PTs: for tables and data
    cost = violations * (KERNEL + HOST_FAULT + HOST_ZERO) + tables * (LIST + TABLE_PAGE + ZERO)
    assert list(figures.exits.values()) == [(violations, cost)]
    assert figures.cycles["pool_wait"] == 0
    assert not moved(outcome)
    assert not [*outcome.messages]


def test_a_large_page_is_faulted_in_and_cleared_whole() -> None:
    _, outcome = run(scenario(vm(host_page="2M"), pool=FAULT, memory="32MiB"), [Script(touches(range(20)))])
    (figures,) = outcome.vms
    ((exits, cycles),) = figures.exits.values()
    assert exits == 2  # for tables of the guest, and for its data
    assert cycles == 2 * (KERNEL + HOST_FAULT + 512 * HOST_ZERO) + 2 * (LIST + TABLE_PAGE + ZERO)


def test_each_page_of_a_chunk_is_faulted_in() -> None:
    """A host has no chunks, but a monitor may ask for them: 100 pages in one exit, more than a list of pages holds."""
    _, outcome = run(scenario(vm(fill_chunk=128), pool=FAULT), [Script(touches(range(100), WRITE))])
    (figures,) = outcome.vms
    each = HOST_FAULT + HOST_ZERO + ENTRY + RMAP
    ((exits, cycles),) = figures.exits.values()
    tables = 2 + 2
    pages = figures.memory["guest"]
    assert exits < 8
    assert cycles == exits * (EXIT + WALK + RESUME) + pages * each + tables * (LIST + TABLE_PAGE + ZERO)


@pytest.mark.parametrize("name", GUESTS)
def test_every_mode_has_its_pages_so_and_gives_them_back(name: str) -> None:
    steps = [*touches(range(40), WRITE), ("unmap", 3, 20), *touches(range(60), WRITE), ("io", 2, 6, 100_000)]
    pair = scenario(*(vm(each, **GUESTS[name]) for each in "ab"), pool=FAULT, cores=2, memory="32MiB")
    free = run(scenario(vm(**GUESTS[name]), pool=FAULT, memory="32MiB"), [Script([])])[0].host.free
    simulation, outcome = run(pair, [Script(steps)] * 2, every=200_000)
    assert outcome.ending is None
    assert time_adds_up(outcome)
    assert [each.guest_faults for each in outcome.vms] == [80, 80]
    assert simulation.host.free == free
    granted, _ = run(scenario(vm(**GUESTS[name]), memory="32MiB"), [Script(steps)])
    assert simulation.vms[0].kernel.faults == granted.vms[0].kernel.faults


def test_lists_of_pages_are_drained_for_who_waits() -> None:
    """a's list has pages that nobody uses; b, which needs the last of the host's, gets them."""
    pair = [vm("a", memory="1MiB"), vm("b", memory="1MiB", start="1ms")]
    marks = {"min": "16KiB", "low": "20KiB", "high": "24KiB"}
    steps = [[*touches(range(3), WRITE), ("compute", 50_000_000)], touches(range(100), WRITE)]
    what = scenario(*pair, pool=FAULT, cores=2, memory=150 * PAGE, watermarks=marks)
    _, outcome = run(what, [Script(each) for each in steps], every=300_000)
    assert outcome.ending is None
    assert 64 + 100 > 150 - 4  # a's list and b's pages are more than there is above the watermark
    assert outcome.vms[1].finish < outcome.vms[0].finish


def test_a_host_with_too_little_says_so() -> None:
    what = scenario(vm(memory="1MiB"), pool=FAULT, memory=100 * PAGE, watermarks={"min": "16KiB"})
    _, outcome = run(what, [Script(touches(range(200), WRITE))])
    assert outcome.ending is not None
    assert "out of memory" in outcome.ending.message


def test_one_vm_may_have_a_pool_and_another_none() -> None:
    what = scenario(vm("a"), vm("b", pool=FAULT), memory="32MiB")
    _, outcome = run(what, [Script(touches(range(20)))] * 2)
    a, b = outcome.vms
    assert moved(outcome) == {"a"}
    assert b.cycles["exit"] - a.cycles["exit"] == 24 * (HOST_FAULT + HOST_ZERO - LIST) + 4 * ZERO


@pytest.mark.parametrize(("host", "own", "key"), [({"min": 3}, {}, "min"), ({}, {"batch": 3}, "batch")])
def test_a_size_of_a_pool_that_is_not_there_is_refused(host: dict[str, int], own: dict[str, int], key: str) -> None:
    tables = {"pool": {**FAULT, **host}, "memory": "32MiB"}
    with pytest.raises(InputError, match=f"pool.{key}.*: it has no effect with pool.supply"):
        Scenario.from_tables({"host": tables, "vm": [vm(pool=own) if own else vm()]})
