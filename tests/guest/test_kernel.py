"""Does the guest's kernel map what faults, as large as it can, and note what Linux notes?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.oracle.tables import translate
from tests.simulation.small import BASE, PAGE, READ, WRITE, Script, run, scenario, touches, vm
from tests.simulation.test_contract import Words
from vmsim.contracts import Moment
from vmsim.engine.simulation import Simulation

PRESENT, RW, USER, ACCESSED, DIRTY = 1, 2, 4, 1 << 5, 1 << 6


def at_the_end(what: Callable[[Simulation], Any], steps: list[Any], **keys: Any) -> Any:
    """Run a bare VM and return what `what` gives just before it gives everything back."""
    seen = []

    def check(moment: Moment, simulation: Simulation, whose: Any) -> None:
        if moment is Moment.VM_FINISHED:
            seen.append(what(simulation))

    run(scenario(vm(mode="native", **keys), memory="64MiB"), [Script(steps)], check=check)
    return seen[0]


def leaf(page: int) -> Callable[[Simulation], tuple[int, int] | None]:
    """Return a look at (bits, level) of the entry that maps a page, None if there is none."""

    def look(simulation: Simulation) -> tuple[int, int] | None:
        machine, memory = simulation.vms[0], simulation.hardware.memory
        root, levels = int(machine.registers["cr3"][0]), int(machine.registers["levels"][0])
        found = translate(Words(memory), root, levels, BASE + page * PAGE)
        if found is None:
            return None
        hpa, level = found
        # The reverse map says where the entry is; a large page's first frame has it.
        first = hpa >> 12 & ~((1 << 9 * (level - 1)) - 1)
        entry = int(memory[simulation.host.frames["rmap"][first] >> 3])
        assert entry & ~0xFFF & (1 << 52) - 1 == first << 12
        return entry & 0x7F, level

    return look


@pytest.mark.parametrize("levels", [4, 5])
def test_a_page_read_is_clean_and_a_page_written_is_dirty(levels: int) -> None:
    """A page fault maps writable at once (demand-zero), accessed, and dirty if a write faulted or came later."""
    rights = PRESENT | RW | USER | ACCESSED
    steps = [("touch", 0, READ), ("touch", 1, WRITE), ("touch", 2, READ), ("touch", 2, WRITE)]
    bits = [at_the_end(leaf(page), steps, guest_levels=levels) for page in range(4)]
    assert bits == [(rights, 1), (rights | DIRTY, 1), (rights | DIRTY, 1), None]


def test_a_large_page_is_used_only_where_no_small_one_stands() -> None:
    """The heap's page was small when memory was short of blocks: here it is made so by an unmap of a part."""
    assert at_the_end(leaf(700), touches([600, 0]), guest_page="2M", memory="16MiB") == (
        PRESENT | RW | USER | ACCESSED,
        2,
    )


@pytest.mark.parametrize(("memory", "faults"), [("2MiB", 30), ("8MiB", 1)])
def test_where_no_large_block_is_left_small_pages_do(memory: str, faults: int) -> None:
    """A guest of 2 MiB has no whole block besides its tables."""
    what = scenario(vm(mode="ept", guest_page="2M", memory=memory))
    _, outcome = run(what, [Script(touches(range(30)))])
    assert outcome.vms[0].guest_faults == faults


def test_a_gigabyte_falls_back_to_two_megabytes() -> None:
    what = scenario(vm(mode="native", guest_page="1G", memory="1GiB"), memory="64MiB")
    _, outcome = run(what, [Script(touches([0, 1, 511, 512]))])
    assert outcome.vms[0].guest_faults == 2
    assert outcome.vms[0].memory["guest"] == 1024


def test_a_fault_beside_small_pages_gets_a_small_page() -> None:
    """Page 0 is mapped small while no block is free; later blocks are, but a table stands where one would go."""
    hog = [
        *touches(range(512, 4 * 512, 512)),
        ("touch", 0, READ),
        ("unmap", 512, 3 * 512),
        ("touch", 1, READ),
    ]
    what = scenario(vm(mode="ept", guest_page="2M", memory="8MiB"), memory="32MiB")
    _, outcome = run(what, [Script([*hog, ("touch", 5 * 512, READ), ("touch", 5 * 512 + 9, READ)])])
    # Three large, page 0 and page 1 small, then one large again.
    assert outcome.vms[0].guest_faults == 3 + 2 + 1
