"""Does the checker see every kind of fault? Each is planted in a sound host, and must be named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.simulation.small import PAGE, READ, WRITE, Script, crowded, run, scenario, touches, vm
from vmsim.contracts import Flush, Moment
from vmsim.engine.check.host import BrokenInvariant, check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import NO_FRAME, UNMOVABLE, State
from vmsim.host.daemons.compaction import Compaction
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.memory import HostMemory
from vmsim.machine.memory import find_entry
from vmsim.monitor.paired.monitor import Paired
from vmsim.tables.edit import translate

Plant = Callable[[Simulation], None]


class SpoiltError(Exception):
    """The host is spoilt: the run ends here."""


def state(simulation: Simulation, owner: int, wanted: State) -> np.ndarray:
    """Return the frames of a VM in one state."""
    frames = simulation.host.frames
    return np.asarray(np.flatnonzero((frames["owner"] == owner) & (frames["state"] == wanted)))


def entries(simulation: Simulation, owner: int) -> np.ndarray:
    """Return the words of memory that map pages of a VM (its reverse map knows them)."""
    nested = simulation.hardware.memory, *simulation.vms[owner].monitor.memory_root
    gpas = simulation.host.frames["rmap"][state(simulation, owner, State.GUEST)] - 1 << 12
    return np.array([find_entry(*nested, 1, gpa)[0] >> 3 for gpa in gpas.tolist()])


def double_list_a_free_frame(simulation: Simulation) -> None:
    """Put the head of one free list on another as well."""
    heads = simulation.host.zone["heads"][0]
    mobility, order = next(place for place in np.ndindex(heads.shape) if heads[place] != NO_FRAME and place[1] > 0)
    heads[mobility, order - 1] = heads[mobility, order]


def lose_a_free_block(simulation: Simulation) -> None:
    heads = simulation.host.zone["heads"][0]
    mobility, order = next(place for place in np.ndindex(heads.shape) if heads[place] != NO_FRAME)
    heads[mobility, order] = simulation.host.frames["next"][heads[mobility, order]]


def list_a_used_frame_as_free(simulation: Simulation) -> None:
    used = int(state(simulation, 0, State.GUEST)[0])
    simulation.host.frames["next"][used] = NO_FRAME
    simulation.host.zone["heads"][0][UNMOVABLE, 0] = used


def count_wrongly(simulation: Simulation) -> None:
    simulation.host.zone["free"] += 1


def drop_frames_from_the_list_of_their_owner(simulation: Simulation) -> None:
    owned, frames = simulation.host.zone["owned"][0], simulation.host.frames
    owned[1 + 0] = frames["next"][owned[1 + 0] - 1] + 1


def hold_a_foreign_page_in_a_pool(simulation: Simulation) -> None:
    pools = [each.pool for each in simulation.vms]
    assert pools[0]
    assert pools[1]
    pools[0].pages.put([int(state(simulation, 1, State.POOL)[0])])


def hold_a_page_twice_in_a_pool(simulation: Simulation) -> None:
    pool = simulation.vms[0].pool
    assert pool
    pool.pages.put(pool.pages.held()[:1])


def leak_a_pool_page(simulation: Simulation) -> None:
    pool = simulation.vms[0].pool
    assert pool
    pool.pages.pop()


def leak_a_guest_frame(simulation: Simulation) -> None:
    simulation.host.take(0, 1, State.GUEST)


def map_a_foreign_frame(simulation: Simulation) -> None:
    """Make an entry of VM 0 point to a page of VM 1."""
    words, theirs = entries(simulation, 0), int(state(simulation, 1, State.GUEST)[0])
    memory = simulation.hardware.memory
    memory[words[-1]] = memory[words[-1]] & (PAGE - 1) | theirs << 12


def let_two_vms_share_a_frame(simulation: Simulation) -> None:
    simulation.host.frames["owner"][state(simulation, 1, State.GUEST)[0]] = 0


def map_a_page_twice(simulation: Simulation) -> None:
    """Copy an entry to the empty one behind it."""
    words, memory = entries(simulation, 0), simulation.hardware.memory
    empty = next(word + 1 for word in words if (word + 1) % 512 and memory[word + 1] == 0)
    memory[empty] = memory[empty - 1]


def name_the_wrong_entry(simulation: Simulation) -> None:
    simulation.host.frames["rmap"][state(simulation, 0, State.GUEST)[3]] += 8


def call_a_page_a_table(simulation: Simulation) -> None:
    simulation.host.frames["state"][state(simulation, 0, State.GUEST)[3]] = State.TABLE


def map_a_page_of_no_size(simulation: Simulation) -> None:
    """Let an entry of level 4 in the nested tables of VM 0 map a page."""
    root = int(simulation.vms[0].registers["nested_root"][0]) >> 3
    simulation.hardware.memory[root : root + 512][simulation.hardware.memory[root : root + 512] != 0] |= 1 << 7


def own_a_large_page_in_part(simulation: Simulation) -> None:
    """VM 2 has pages of 2 MiB: one frame in the middle becomes VM 1's."""
    simulation.host.frames["owner"][state(simulation, 2, State.GUEST)[100]] = 1


def tlb_entry(simulation: Simulation, owner: int, size: int = 0) -> tuple[Any, Any]:
    """Return (the sets, the place) of what the second-level TLB keeps for a VM."""
    sets = simulation.hardware.cores[0]["l2_tlb0"]
    tags = sets["tag"]
    (place, *_) = np.argwhere((tags >= 0) & (tags >> 47 == owner + 1) & (tags & 3 == size)).tolist()
    return sets, tuple(place)


def clear_an_entry_behind_the_tlb(simulation: Simulation) -> None:
    """Unmap a page in the guest's own table without telling the TLB."""
    machine = simulation.vms[0]
    sets, place = tlb_entry(simulation, 0)
    gva = (int(sets["tag"][place]) & (1 << 47) - 1) >> 2 << 12
    table, memory = int(machine.registers["cr3"][0]), simulation.hardware.memory
    nested = int(machine.registers["nested_root"][0]), int(machine.registers["nested_levels"][0])
    for level in (4, 3, 2, 1):
        hpa = int(translate(memory, *nested, table + (gva >> 3 + 9 * level) % 512 * 8))
        table = int(memory[hpa >> 3]) & ~(PAGE - 1)
    memory[hpa >> 3] = 0


def translate_to_another_frame(simulation: Simulation) -> None:
    sets, place = tlb_entry(simulation, 0)
    sets["value"][place] += PAGE


def spoil(unit: str) -> Plant:
    """Return a plant that changes a frame that a unit of core 0 keeps."""

    def plant(simulation: Simulation) -> None:
        sets = simulation.hardware.cores[0][unit]
        (place, *_) = np.argwhere(sets["tag"] >= 0).tolist()
        sets["value"][tuple(place)] += PAGE

    plant.__name__ = f"spoil_{unit}"
    return plant


def forget_to_flush(simulation: Simulation) -> None:
    """Leave an entry of an address space that never was."""
    sets, place = tlb_entry(simulation, 0)
    sets["tag"][place] += 77 << 47


PLANTS: list[tuple[Plant, str]] = [
    (double_list_a_free_frame, "conservation: the free list of order"),
    (lose_a_free_block, "conservation: .* on no free list"),
    (list_a_used_frame_as_free, "conservation: the free list of order 0"),
    (count_wrongly, "conservation: .* the allocator counts"),
    (drop_frames_from_the_list_of_their_owner, "conservation: the list of the frames of a "),
    (hold_a_foreign_page_in_a_pool, "conservation: the pool of a holds"),
    (hold_a_page_twice_in_a_pool, "conservation: the pool of a holds"),
    (leak_a_pool_page, "conservation"),
    (leak_a_guest_frame, "conservation"),
    (map_a_foreign_frame, "isolation: a reaches frame .*, which is not its own"),
    (let_two_vms_share_a_frame, "isolation: b reaches frame .*, which is not its own"),
    (own_a_large_page_in_part, "isolation: c reaches frame .*, which is not its own"),
    (map_a_page_of_no_size, "isolation: an entry of a maps a page size that does not exist"),
    (map_a_page_twice, "isolation: the reverse map"),
    (name_the_wrong_entry, "isolation: the reverse map"),
    (call_a_page_a_table, "isolation: frame .* of a is not in the state"),
    (clear_an_entry_behind_the_tlb, "coherence: l[12]_tlb0 gives a another frame"),
    (translate_to_another_frame, "coherence: l2_tlb0 gives a another frame"),
    (forget_to_flush, "coherence: l2_tlb0 still holds entries of address space 78"),
    (spoil("ntlb"), "coherence: the nested TLB gives [abc]"),
    (spoil("pde"), "coherence: pde gives [abc] another table"),
    (spoil("pdpte"), "coherence: pdpte gives [abc] another table"),
    (spoil("pml4e"), "coherence: pml4e gives [abc] another table"),
    (spoil("nested_pde"), "coherence: nested_pde gives [abc] another table"),
    (spoil("nested_pdpte"), "coherence: nested_pdpte gives [abc] another table"),
    (spoil("nested_pml4e"), "coherence: nested_pml4e gives [abc] another table"),
]


@pytest.mark.parametrize(("plant", "said"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_a_planted_fault_is_found_and_named(plant: Plant, said: str) -> None:
    """At the end of a, when b and c still run and have everything."""
    found: list[str] = []

    def at_boundary(moment: Moment, simulation: Simulation, whose: Any) -> None:
        check_invariants(moment, simulation, whose)  # the host is sound before
        if moment is not Moment.VM_FINISHED or whose.spec.name != "a" or found:
            return
        plant(simulation)
        with pytest.raises(BrokenInvariant, match=said) as caught:
            check_invariants(moment, simulation, whose)
        found.append(str(caught.value))
        raise SpoiltError

    what = scenario(
        vm("a"),
        vm("b", mode="npt"),
        vm("c", memory="4MiB", host_page="2M"),
        memory="32MiB",
        quantum="5us",
        cores=1,
    )
    streams = [Script([*touches(range(20)), *[("touch", 0, READ, 1000)] * n]) for n in (400, 2000, 2000)]
    with pytest.raises(SpoiltError):
        run(what, streams, check=at_boundary)
    assert found[0].endswith("at the end of a.")


def copy_nothing(old: np.ndarray, new: np.ndarray) -> None:
    """Leave a page's contents behind."""
    new[:] = 0


def copy_the_wrong_way(old: np.ndarray, new: np.ndarray) -> None:
    new[:] = 0
    old[:] = new


def copy_half(old: np.ndarray, new: np.ndarray) -> None:
    new[256:] = 0


@pytest.mark.parametrize("copy", [copy_nothing, copy_the_wrong_way, copy_half])
def test_a_page_that_loses_something_as_it_is_moved_is_found(
    monkeypatch: pytest.MonkeyPatch, copy: Callable[[np.ndarray, np.ndarray], None]
) -> None:
    move = GuestMemory.move

    def careless(memory: GuestMemory, gfn: int, pfn: int) -> Flush:
        old = memory.frame_of(gfn)
        flush = move(memory, gfn, pfn)
        copy(*(memory.words[frame << 9 : (frame + 1) << 9] for frame in (old, pfn)))
        return flush

    monkeypatch.setattr(GuestMemory, "move", careless)
    what, streams = crowded([("compute", 120_000_000)])
    said = r"contents: frame .* does not hold what frame .* held.*at a compaction that has moved pages"
    with pytest.raises(BrokenInvariant, match=said):
        run(what, streams)


def test_an_entry_that_still_leads_to_where_a_page_was_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Paired, "zap", lambda *_: Flush(nested=True))
    what, streams = crowded([("compute", 120_000_000)])
    with pytest.raises(BrokenInvariant, match=r"isolation: .* of io|isolation: io reaches"):
        run(what, streams)


def forget_tables(words: dict[int, np.ndarray]) -> None:
    """Lose what each page held."""
    words.clear()


def mix_up_tables(words: dict[int, np.ndarray]) -> None:
    """Have each page hold what another held."""
    held = [*words.values()]
    words.update(zip(words, [*held[1:], *held[:1]], strict=True))


def lose_half_of_a_table(words: dict[int, np.ndarray]) -> None:
    for each in words.values():
        each[:256] = 0


@pytest.mark.parametrize("lose", [forget_tables, mix_up_tables, lose_half_of_a_table])
@pytest.mark.parametrize("mode", ["ept", "shadow", "agile", "paired", "vkernel"])
def test_a_table_that_the_host_took_and_lost_is_found(mode: str, lose: Callable[[dict[int, np.ndarray]], None]) -> None:
    """The host takes all of a guest's page tables at once, and spoils what they held."""
    what = scenario(vm(mode=mode, memory="2MiB"), memory="16MiB")
    steps = [step for _ in range(12) for step in (*touches(range(200), WRITE), ("unmap", 50, 20))]
    spoilt = list[bool]()

    def look(simulation: Simulation) -> None:
        (machine,) = simulation.vms
        if not machine.able or simulation.env.cycle < 600_000 or spoilt:
            return
        assert machine.slot
        gfns = machine.slot.present()
        for gfn in gfns[machine.kernel.frames.frames["state"][gfns] == State.TABLE].tolist():
            machine.forget(machine.slot.take(gfn, 1))
        assert len(machine.slot.contents) >= 4
        lose(machine.slot.contents)
        spoilt.append(True)

    with pytest.raises(BrokenInvariant):
        run(what, [Script(steps)], every=50_000, look=look)
    assert spoilt


def move_what_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have compaction look at pins no more."""
    places = Compaction._places

    def careless(compaction: Compaction, pfns: np.ndarray) -> Any:
        pins = compaction.host.pins
        compaction.host.pins = np.zeros_like(pins)
        movable = places(compaction, pfns)
        compaction.host.pins = pins
        return movable

    monkeypatch.setattr(Compaction, "_places", careless)
    monkeypatch.setattr(GuestMemory, "pinned", lambda *_: False)


def pin_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count a request's pages, and tell nobody which."""
    monkeypatch.setattr(HostMemory, "pin", lambda host, pfns: None)


def pin_other_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostMemory, "pin", lambda host, pfns: np.add.at(host.pins, pfns + 1, 1))


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (move_what_is_pinned, "pins: page .* of (io|e) is pinned in frame .*, and has moved to frame"),
        (pin_nothing, "pins: frame .* is pinned 0 times, and 1 requests of devices are on it"),
        (pin_other_frames, "pins: frame .* is pinned 0 times, and 1 requests of devices are on it"),
    ],
)
def test_a_pinned_page_that_may_move_is_found(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None], said: str
) -> None:
    plant(monkeypatch)
    what, streams = crowded([("io", 0, 600, 80_000_000)])
    with pytest.raises(BrokenInvariant, match=said):
        run(what, streams)


def test_a_page_under_a_device_that_is_given_away_is_found() -> None:
    def at_boundary(moment: Moment, simulation: Simulation, whose: Any) -> None:
        if simulation.vms[0].io.pins:
            simulation.host.frames["state"][simulation.vms[0].io.pins[0].pfns[3]] = State.POOL
        check_invariants(moment, simulation, whose)

    what, streams = crowded([("io", 0, 600, 80_000_000)])
    with pytest.raises(BrokenInvariant, match=r"pins: frame \d+, pinned by io, is not a page of its memory"):
        run(what, streams, check=at_boundary)


def test_a_broken_invariant_stops_the_run_and_says_when() -> None:
    def at_boundary(moment: Moment, simulation: Simulation, whose: Any) -> None:
        if moment is not Moment.STARTED:
            count_wrongly(simulation)
        check_invariants(moment, simulation, whose)

    with pytest.raises(BrokenInvariant, match=r"Found at cycle [1-9]\d*, at the end of vm\."):
        run(scenario(vm()), [Script(touches([0]))], check=at_boundary)


def test_the_moments_are_the_start_and_each_vms_end_and_return() -> None:
    seen: list[tuple[Moment, str]] = []
    run(scenario(vm("a"), vm("b")), check=lambda what, _, vm: seen.append((what, vm.spec.name if vm else "")))
    assert seen[0] == (Moment.STARTED, "")
    ends = [(moment, name) for name in "ab" for moment in (Moment.VM_FINISHED, Moment.VM_GONE)]
    assert sorted(seen[1:], key=str) == sorted(ends, key=str)


@pytest.mark.parametrize(
    ("mode", "method"), [("ept", "pml"), *((m, w) for m in ("ept", "npt") for w in ("write-protect", "ad-scan"))]
)
@pytest.mark.parametrize("planted", [False, True])
def test_a_dirty_log_read_without_its_flush_is_found(mode: str, method: str, planted: bool) -> None:
    """The processor goes on writing to pages that it knows as writable and dirty, and the log misses them."""
    log = {"method": method, "every": "20us"}
    workload = {"kind": "uniform", "footprint": 40 * PAGE, "accesses": 6000, "writes": 0.5}
    what = scenario(vm(mode=mode, dirty_log=log, workload=workload), cpu="skylake-x", quantum="7us", what_if=True)
    simulation = Simulation(what, observers=[check_invariants], serve=False)
    if planted:
        simulation.vms[0].monitor.features[0]._flush = lambda: None  # type: ignore[attr-defined]
        with pytest.raises(BrokenInvariant, match=r"coherence: .* (writable|dirty).* for vm, which the tables"):
            simulation.run()
    else:
        assert simulation.run().ending is None
