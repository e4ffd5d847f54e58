"""Is a program on the host itself held to the memory that its VM is given?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import WRITE, Script, run, scenario, touches, vm
from tests.simulation.sums import check
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.record.outcome import Outcome

PAGES = 256  # 1 MiB
TABLES = 4  # of 4 levels, for pages next to each other


def outcome_of(steps: list[Any], *, serve: bool = True, **keys: Any) -> tuple[int, Outcome]:
    """Return the most frames that the VM has had after any access, and the outcome."""
    what = scenario(vm(**{"mode": "native", "memory": "1MiB", **keys}), memory="64MiB")
    simulation = Simulation(what, streams=[Script(steps)], serve=serve)
    most, give_all = 0, simulation.host.give_all

    def counted(owner: int) -> int:
        nonlocal most
        most = max(most, sum(simulation.host.count(owner).values()))
        return give_all(owner)

    simulation.host.give_all = counted  # type: ignore[method-assign]
    outcome = simulation.run()
    check(what, outcome)
    return most, outcome


@pytest.mark.parametrize("serve", [True, False])
def test_the_last_page_of_its_memory_can_be_had_and_no_more(serve: bool) -> None:
    most, outcome = outcome_of(touches(range(PAGES - TABLES), WRITE), serve=serve)
    assert outcome.ending is None
    assert most == PAGES
    most, outcome = outcome_of(touches(range(PAGES - TABLES + 1), WRITE), serve=serve)
    assert outcome.ending is not None
    assert "VM vm ran out of its own memory (1MiB) after 252 of 253 accesses" in outcome.ending.message
    assert most == PAGES


def test_pages_unmapped_can_be_had_again() -> None:
    steps: list[Any] = []
    for start in range(0, 2000, 200):
        steps += [*touches(range(start, start + 200), WRITE), ("unmap", start, 200)]
    _, outcome = outcome_of([*steps, ("touch", 0, WRITE)])
    assert outcome.ending is None
    assert outcome.vms[0].guest_faults == 2001


def test_a_fork_shares_its_parents_pages_and_pays_for_its_tables_and_copies() -> None:
    steps = [*touches(range(100), WRITE), ("fork", 2), *touches(range(100), WRITE)]
    _, outcome = outcome_of(steps)
    assert outcome.ending is None  # 100 pages, 100 copies, twice 4 tables
    steps = [*touches(range(130), WRITE), ("fork", 2), *touches(range(130), WRITE)]
    _, outcome = outcome_of(steps)
    assert outcome.ending is not None


@pytest.mark.parametrize("populate", ["lazy", "eager"])
def test_large_pages_give_way_to_small_ones_where_they_do_not_fit(populate: str) -> None:
    """4 MiB: one page of 2 MiB and its three tables leave no room for a second (mm/memcontrol.c: the charge fails)."""
    keys = {"memory": "4MiB", "guest_page": "2M", "workload": {"footprint": 600 * 4096}}
    most, outcome = outcome_of(touches([0, 512, 513], WRITE), populate="lazy", **keys)
    assert outcome.ending is None
    assert most <= 1024
    assert outcome.vms[0].memory["guest"] <= 512 + 64
    assert outcome.vms[0].figures.named("host")["large_page_failures"] == 0  # the host has some


def test_what_is_mapped_before_the_clock_starts_counts() -> None:
    far = [number * 512 for number in range(200)]
    _, outcome = outcome_of(touches(far, WRITE), populate="eager")  # a page and a table each
    assert outcome.ending is not None
    assert outcome.ending.time == 0
    assert "ran out of its own memory (1MiB)" in outcome.ending.message


@pytest.mark.parametrize("layout", ["contiguous", "pointer", "separate"])
def test_a_paired_process_is_held_to_its_memory_the_halves_it_does_not_use_apart(layout: str) -> None:
    keys: dict[str, Any] = {"mode": "paired", "paired": {"layout": layout, "guest": False}}
    _, outcome = outcome_of(touches(range(PAGES - TABLES), WRITE), **keys)
    assert outcome.ending is None
    _, outcome = outcome_of(touches(range(PAGES - TABLES + 1), WRITE), **keys)
    assert outcome.ending is not None


def test_all_is_the_hosts_again() -> None:
    what = scenario(vm(mode="native", memory="1MiB"))
    simulation, outcome = run(what, [Script(touches(range(300), WRITE))])
    assert outcome.ending is not None
    assert (simulation.host.frames["state"] == State.FREE).all()
