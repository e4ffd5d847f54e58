"""Does the checker see every right too many? Each is planted in a sound host, and must be named.

What a processor keeps may give no right that the tables it walks do not; what a monitor keeps in the place of the
guest's tables, none that the guest's and the host's do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.simulation.small import PAGE, scenario, vm
from vmsim.contracts import Moment
from vmsim.engine.check.host import BrokenInvariant, check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.machine.formats import FRAME
from vmsim.machine.memory import find_entry
from vmsim.tables.backing import host_address

Plant = Callable[[Simulation], None]


class SpoiltError(Exception):
    """The host is spoilt: the run ends here."""


SHADOWS: list[dict[str, Any]] = [
    {"preset": "kvm"},
    {"preset": "kvm-2007"},
    {"preset": "plex86"},
    {"preset": "plex86", "hide": "present-bit"},
]
KEPT: list[tuple[str, dict[str, Any]]] = [
    ("native", {}),
    ("ept", {}),
    ("npt", {}),
    *(("shadow", {"shadow": shadow}) for shadow in SHADOWS),
    ("agile", {}),
    ("vkernel", {}),
    ("paired", {}),
]


def at_the_end_of_a_slice(mode: str, plant: Plant, said: str, *, workload: dict[str, Any], **keys: Any) -> None:
    """Run a VM that is sound until a time slice ends in which its tables are up; there plant a fault, to be named."""
    done: list[bool] = []

    def at_boundary(moment: Moment, simulation: Simulation, whose: Any) -> None:
        check_invariants(moment, simulation, whose)
        if moment is Moment.SLICE_ENDED and whose.kernel.root >= 0 and not done and not whose.monitor.stale(0):
            try:
                plant(simulation)
            except StopIteration:  # nothing is there yet in which to plant it
                return
            done.append(True)
            with pytest.raises(BrokenInvariant, match=said):
                check_invariants(moment, simulation, whose)
            raise SpoiltError

    what = scenario(
        vm(mode=mode, **keys) | {"workload": workload}, memory="32MiB", cpu="skylake-x", quantum="11us", what_if=True
    )
    with pytest.raises(SpoiltError):
        Simulation(what, observers=[at_boundary]).run()
    assert done


WRITES = {"kind": "uniform", "footprint": 40 * PAGE, "accesses": 12000, "writes": 0.5}
PROGRAMS = {"kind": "compile", "footprint": 32 * PAGE, "text": 8 * PAGE, "parent": 8 * PAGE, "processes": 12}


def written_page(simulation: Simulation) -> int:
    """Return the frame, of the guest's data, of a translation that a TLB keeps as writable and dirty."""
    machine = simulation.vms[0]
    assert machine.slot
    backed = {machine.slot.frame_of(gfn): gfn for gfn in machine.slot.present().tolist()}
    data = machine.kernel.frames.frames["state"]
    for unit in ("l1_tlb0", "l2_tlb0"):
        sets = simulation.hardware.cores[0][unit]
        for value in sets["value"][sets["tag"] >= 0].tolist():
            gfn = backed.get((value & FRAME) >> 12, -1)
            if value & 0x42 == 0x42 and gfn >= 0 and data[gfn] == State.GUEST:
                return gfn
    raise StopIteration


def protect_without_a_flush(simulation: Simulation) -> None:
    machine = simulation.vms[0]
    assert machine.slot
    machine.slot.second.protect(written_page(simulation), 1)


def clear_dirty_without_a_flush(simulation: Simulation) -> None:
    machine = simulation.vms[0]
    assert machine.slot
    machine.slot.second.dirty(written_page(simulation), 1, clear=True)


@pytest.mark.parametrize(
    ("plant", "said"), [(protect_without_a_flush, "writable"), (clear_dirty_without_a_flush, "(dirty|writable)")]
)
@pytest.mark.parametrize(("mode", "keys"), [each for each in KEPT if each[0] != "native"], ids=str)
def test_a_right_that_the_host_has_taken_and_nobody_has_flushed_is_found(
    mode: str, keys: dict[str, Any], plant: Plant, said: str
) -> None:
    """As a reader of a dirty log does that forgets its flush: in every mode that a host could read one of."""
    match = rf"coherence: .*{said}.* for vm, which the tables do not say"
    at_the_end_of_a_slice(mode, plant, match, workload=WRITES, **keys)


def leaf_of(simulation: Simulation, value: int, gva: int) -> int:
    """Return the place (a word of memory) of the guest's own entry that maps a page."""
    machine = simulation.vms[0]
    table, memory = machine.kernel.root, simulation.hardware.memory
    for level in (4, 3, 2, 1):
        hpa = int(host_address(machine.monitor.backing, table + (gva >> 3 + 9 * level) % 512 * 8))
        table = int(memory[hpa >> 3]) & FRAME
    return hpa >> 3


def take_the_guests_right(simulation: Simulation) -> None:
    """Make an entry of the guest's own tables read-only, and let a TLB keep that it is not."""
    for unit in ("l1_tlb0", "l2_tlb0"):
        sets = simulation.hardware.cores[0][unit]
        for tag, value in zip(sets["tag"].ravel().tolist(), sets["value"].ravel().tolist(), strict=True):
            if tag >= 0 and value & 2:
                simulation.hardware.memory[leaf_of(simulation, value, (tag & (1 << 47) - 1) >> 2 << 12)] &= ~2
                return
    raise StopIteration


@pytest.mark.parametrize("mode", ["native", "ept", "npt", "paired"])
def test_a_right_that_the_guest_has_taken_and_nobody_has_flushed_is_found(mode: str) -> None:
    """Where the hardware walks the guest's own tables."""
    match = r"coherence: l._tlb0, of gva .*, is writable for vm, which the tables do not say"
    at_the_end_of_a_slice(mode, take_the_guests_right, match, workload=WRITES)


def shadow_entries(simulation: Simulation, *, unsync: bool = False) -> list[tuple[int, int]]:
    """Return where the shadow's entries of level 1 lie that are in step, or not, and the guest's: words of memory."""
    monitor: Any = simulation.vms[0].monitor
    pages, memory, found = monitor.pages, simulation.hardware.memory, []
    for page in np.flatnonzero((pages["level"] == 1) & (pages["unsync"] == unsync) & (pages["origin"] < 0)).tolist():
        first = int(pages["hpa"][page]) >> 3
        table = int(host_address(monitor.backing, int(pages["gfn"][page]) << 12)) >> 3
        found += [(first + index, table + index) for index in np.flatnonzero(memory[first : first + 512]).tolist()]
    return found


def take_the_guests_behind_the_monitors_back(simulation: Simulation) -> None:
    """Make an entry of the guest's read-only whose shadow is not."""
    memory = simulation.hardware.memory
    memory[next(guest for shadow, guest in shadow_entries(simulation) if int(memory[shadow]) & 2)] &= ~2


def let_a_clean_page_be_written(simulation: Simulation) -> None:
    memory = simulation.hardware.memory
    memory[next(shadow for shadow, guest in shadow_entries(simulation) if int(memory[guest]) & 0x42 == 2)] |= 2


def reach_a_table(bits: int) -> Plant:
    """Return a plant that maps a page of a program to one of the guest's own tables that is shadowed, with rights."""

    def plant(simulation: Simulation) -> None:
        monitor: Any = simulation.vms[0].monitor
        memory, pages = simulation.hardware.memory, monitor.pages
        found = shadow_entries(simulation, unsync=monitor.spec.trap == "unsync")
        shadow, guest = next(each for each in found if int(memory[each[1]]) & 0x47 == 0x47)
        page = next(each for each in np.flatnonzero(pages["level"] == 2).tolist() if pages["origin"][each] < 0)
        gfn = int(pages["gfn"][page])
        memory[guest] = gfn << 12 | int(memory[guest]) & 0xFFF
        memory[shadow] = int(host_address(monitor.backing, gfn << 12)) | int(memory[shadow]) & 0xFF9 | bits

    return plant


@pytest.mark.parametrize("shadow", SHADOWS[1:], ids=lambda keys: keys["preset"])  # kvm's may be out of step
def test_a_shadow_entry_that_gives_what_the_guests_does_not_is_found(shadow: dict[str, Any]) -> None:
    said = "coherence: a shadow entry of level 1 gives rights that the guest's does not"
    at_the_end_of_a_slice("shadow", take_the_guests_behind_the_monitors_back, said, workload=PROGRAMS, shadow=shadow)


def test_a_shadow_entry_that_lets_a_clean_page_be_written_is_found() -> None:
    """No exit would then tell the guest, whose entry has no D, that the page was written to."""
    said = "coherence: a shadow entry of level 1 lets a page be written to that is clean in the guest's"
    reads = {"kind": "uniform", "footprint": 40 * PAGE, "accesses": 12000, "writes": 0.0}
    at_the_end_of_a_slice("shadow", let_a_clean_page_be_written, said, workload=reads, shadow=SHADOWS[1])


@pytest.mark.parametrize(
    ("shadow", "bits"), list(zip(SHADOWS, (6, 6, 4, 0), strict=True)), ids=["unsync", "protected", "user", "present"]
)
def test_a_shadow_entry_by_which_a_guest_reaches_its_own_table_is_found(shadow: dict[str, Any], bits: int) -> None:
    said = "coherence: a shadow entry of level 1 lets the guest reach its table in frame"
    at_the_end_of_a_slice("shadow", reach_a_table(bits), said, workload=PROGRAMS, shadow=shadow)


@pytest.mark.parametrize("mode", ["agile", "vkernel", "paired"])
def test_a_table_in_the_guests_place_that_gives_more_is_found(mode: str) -> None:
    """Agile's shadow, a vkernel's map, and the EPT beside a KPT."""
    said = {
        "agile": "coherence: a shadow entry of level 1 gives rights that the guest's does not",
        "vkernel": "coherence: a vkernel's map gives rights for gva .* that the guest's tables do not",
        "paired": "pairs: only the KPT maps .* read-only",
    }[mode]

    def plant(simulation: Simulation) -> None:
        machine, memory = simulation.vms[0], simulation.hardware.memory
        if mode == "agile":
            take_the_guests_behind_the_monitors_back(simulation)
        elif mode == "vkernel":
            table = int(machine.registers["cr3"][0]) & FRAME
            tables = [table]
            for _ in range(3):
                tables = [
                    int(word) & FRAME for each in tables for word in memory[each >> 3 : (each >> 3) + 512] if word
                ]
            used = ((each >> 3) + np.flatnonzero(memory[each >> 3 : (each >> 3) + 512]) for each in tables)
            place = next(int(word) for some in used for word in some if not int(memory[word]) & 2)
            memory[place] |= 2
        else:
            space: Any = machine.monitor.space  # type: ignore[attr-defined]
            assert machine.slot
            gfn = int(machine.slot.present()[-1])
            place, level = find_entry(memory, space.kpt, space.levels, 1, gfn << 12)
            assert level == 1
            memory[int(place) >> 3] &= ~2

    workload = WRITES if mode == "paired" else PROGRAMS if mode == "agile" else WRITES | {"writes": 0.0}
    at_the_end_of_a_slice(mode, plant, said, workload=workload)
