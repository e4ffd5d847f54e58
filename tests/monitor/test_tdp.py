"""Does a monitor back guest memory with the pages it should, with entries that its format asks for?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.simulation.small import Script, run, scenario, touches, vm
from vmsim.contracts import Moment
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.machine.formats import EPT, NPT
from vmsim.machine.memory import find_entry
from vmsim.monitor.tdp.monitor import Tdp


def backed(simulation: Simulation) -> int:
    """Return how many guest frames the nested tables map."""
    machine = simulation.vms[0]
    assert isinstance(machine.monitor, Tdp)
    return sum(machine.monitor.backed(gfn) for gfn in range(machine.spec.pages))


def look_at_end(look: Any, table: dict[str, Any], steps: list[Any], **host: Any) -> Any:
    seen = []

    def check(moment: Moment, simulation: Simulation, whose: Any) -> None:
        if moment is Moment.VM_FINISHED:
            seen.append(look(simulation))

    _, outcome = run(scenario(table, **host), [Script(steps)], check=check)
    return seen[0], outcome.vms[0]


@pytest.mark.parametrize("mode", ["ept", "npt"])
def test_only_what_was_touched_is_backed(mode: str) -> None:
    count, figures = look_at_end(backed, vm(mode=mode), touches(range(20)))
    assert count == figures.memory["guest"] == 24


@pytest.mark.parametrize("page", ["4K", "2M"])
@pytest.mark.parametrize("memory", ["4MiB", "5MiB"])
def test_an_eager_vm_is_backed_wholly(page: str, memory: str) -> None:
    """What is no whole large page is backed with small ones."""
    table = vm(host_page=page, memory=memory, populate="eager")
    count, figures = look_at_end(backed, table, touches(range(20)))
    assert count == figures.memory["guest"] == int(memory[0]) * 256
    assert list(figures.exits.values()) == [(0, 0)]
    # Root, PDPT, PD, and PTs for what is mapped small.
    tables = {("4K", "4MiB"): 2, ("4K", "5MiB"): 3, ("2M", "4MiB"): 0, ("2M", "5MiB"): 1}[page, memory]
    assert figures.memory["table"] == 3 + tables


def test_a_host_without_large_blocks_backs_with_small_pages() -> None:
    """The 1.5 MiB host has no block of 2 MiB at all."""
    marks = {"min": "16KiB", "low": "20KiB", "high": "24KiB"}
    what = scenario(vm(host_page="2M", memory="2MiB"), memory="1.5MiB", watermarks=marks)
    _, outcome = run(what, [Script(touches(range(20)))])
    assert outcome.vms[0].exits["EPT_VIOLATION"][0] == 24
    assert outcome.vms[0].memory["guest"] == 24


def test_the_last_part_of_memory_that_is_no_large_page_is_backed_with_small_ones() -> None:
    """Guest memory of 3 MiB: frames above 2 MiB cannot be part of a page of 2 MiB."""
    count, figures = look_at_end(backed, vm(host_page="2M", memory="3MiB"), touches(range(100)), memory="32MiB")
    ((exits, _),) = figures.exits.values()
    assert count == 512 + 100  # the tables' pageblock, and the data in what is left
    assert exits == 1 + 100


@pytest.mark.parametrize(("mode", "form"), [("ept", EPT(ad_bits=False)), ("npt", NPT)])
def test_entries_have_the_bits_of_their_format(mode: str, form: Any) -> None:
    def look(simulation: Simulation) -> set[int]:
        frames = simulation.host.frames
        mapped = (frames["owner"] == 0) & (frames["state"] == State.GUEST)
        return {word & 0xFFF for word in entries_of(simulation, frames["rmap"][mapped] - 1)}

    bits, _ = look_at_end(look, vm(mode=mode), touches(range(20)))
    assert bits == {form.page}


def entries_of(simulation: Simulation, gfns: np.ndarray) -> list[int]:
    """Return the nested entries that map guest frames of the first VM."""
    memory, nested = simulation.hardware.memory, simulation.vms[0].monitor.memory_root
    return [int(memory[int(find_entry(memory, *nested, 1, gfn << 12)[0]) >> 3]) for gfn in gfns.tolist()]


def test_the_reverse_map_names_every_guest_frame_and_every_entry_of_a_table_once() -> None:
    def look(simulation: Simulation) -> tuple[int, int]:
        frames = simulation.host.frames
        pages, tables = (
            np.flatnonzero((frames["owner"] == 0) & (frames["state"] == state)) for state in (State.GUEST, State.TABLE)
        )
        assert [word >> 12 & (1 << 40) - 1 for word in entries_of(simulation, frames["rmap"][pages] - 1)] == [*pages]
        linked = tables[frames["rmap"][tables] > 0]
        words = simulation.hardware.memory[frames["rmap"][linked] >> 3]
        assert [*(words >> 12 & (1 << 40) - 1)] == [*linked]
        named = {*frames["rmap"][pages].tolist(), *(-frames["rmap"][tables]).tolist()}
        return len(named), len(pages) + len(tables)

    (places, frames), _ = look_at_end(look, vm(), touches(range(50)))
    assert places == frames  # the root's is 0: nothing maps it


@pytest.mark.parametrize("mode", ["ept", "npt"])
@pytest.mark.parametrize(("chunk", "exits"), [(1, 64 + 4), (4, 16 + 2), (64, 1 + 1)])
def test_a_violation_brings_in_a_chunk_too(mode: str, chunk: int, exits: int) -> None:
    """64 frames of data in a row, aligned, and 4 of tables from frame 1 on: those lie in two chunks of 4."""
    what = scenario(vm(mode=mode, fill_chunk=chunk), pool={"min": 200, "max": 400, "batch": 256})
    _, outcome = run(what, [Script(touches(range(64)))])
    ((count, cycles),) = outcome.vms[0].exits.values()
    assert outcome.vms[0].finished
    assert cycles == outcome.vms[0].cycles["exit"]
    assert count == exits
