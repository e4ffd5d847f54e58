"""Do page tables lie scattered where they are asked to, and does that change where they lie and nothing else?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.buddy import Buddy
from tests.simulation.small import WRITE, Script, divided, run, scenario, time_adds_up, touches, vm
from vmsim.base.errors import InputError
from vmsim.engine.check.host import BrokenInvariant, check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.frames.buddy import allocate_many, free_many, make_zone
from vmsim.frames.nodes import make_nodes
from vmsim.frames.records import MAX_ORDER, PAGEBLOCK, UNMOVABLE, State
from vmsim.frames.uptime import scatter_tables
from vmsim.record.tables import rows
from vmsim.scenario import Scenario

FRAMES = 1 << 13
SPAN = 4 << PAGEBLOCK
GUESTS = ["ept", "npt", "shadow", "agile", "paired", "vkernel"]


def scattered(span: int = SPAN, seed: int = 1, frames: int = FRAMES, limit: int = 0) -> tuple[Any, Any, Any]:
    zone, records = make_zone(frames)
    kept = scatter_tables(zone, records, 0, span, np.random.PCG64(seed), limit)
    return zone, records, kept


def taken(zone: Any, records: Any, state: State, count: int) -> Any:
    pfns = np.empty(count, np.int64)
    assert allocate_many(zone, records, 0, int(state), 0, pfns) == count
    return pfns


def test_tables_get_the_frames_between_those_kept_in_no_order_and_then_whole_pageblocks() -> None:
    zone, records, kept = scattered()
    assert len(kept) == SPAN // 2 == len(np.unique(kept))
    holes = set((kept ^ 1).tolist())
    assert 0.4 < (kept % 2).mean() < 0.6
    tables = taken(zone, records, State.TABLE, SPAN // 2)
    assert set(tables.tolist()) == holes - {0} | (set(tables.tolist()) - holes)
    assert len(set(tables.tolist()) - holes) <= (0 in holes)
    apart = np.abs(np.diff(tables))
    assert np.median(apart) > 100
    later = taken(zone, records, State.TABLE, 64)
    assert np.diff(later).tolist() == [1] * 63


def test_pages_of_programs_lie_as_they_would() -> None:
    zone, records, kept = scattered()
    blocks = set((kept >> PAGEBLOCK).tolist())
    assert len(blocks) == SPAN >> PAGEBLOCK
    pages = taken(zone, records, State.GUEST, FRAMES - SPAN)
    assert not blocks & set((pages >> PAGEBLOCK).tolist())
    assert (np.diff(pages) == 1).mean() > 0.99


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 62), frames=st.integers(1 << 10, 5000), blocks=st.integers(1, 4), limit=st.booleans())
def test_the_allocator_knows_of_every_frame_and_gets_all_back(seed: int, frames: int, blocks: int, limit: bool) -> None:
    end = frames // 2 if limit else 0
    zone, records, kept = scattered(blocks << PAGEBLOCK, seed, frames, end)
    assert zone["free"][0] == frames - len(kept) == (records["state"] == State.FREE).sum()
    assert len(kept) == min(blocks, (end or frames) >> PAGEBLOCK) << (PAGEBLOCK - 1)
    assert not end or (kept < end).all()
    assert (records["state"][kept] == State.TABLE).all()
    assert (records["mobility"][kept] == UNMOVABLE).all()
    free_many(zone, records, 0, kept)
    whole = Buddy(frames, MAX_ORDER, PAGEBLOCK).free
    starts = np.flatnonzero(records["block"])
    assert {(int(at), int(records["block"][at]) - 1) for at in starts} == whole


def test_a_seed_says_which_frames() -> None:
    one, same, other = (scattered(seed=seed)[2].tolist() for seed in (1, 1, 2))
    assert one == same
    assert {*one} != {*other}


def test_every_node_counts_its_own() -> None:
    sizes = [3 << 11, 5 << 9]
    zones, records = make_nodes(sizes, [[0, 1], [1, 0]], 2)
    kept = scatter_tables(zones, records, -1, 10 << PAGEBLOCK, np.random.PCG64(1))
    first = int((kept < sizes[0]).sum())
    assert 0 < first < len(kept)
    assert zones["free"].tolist() == [sum(sizes) - len(kept), sizes[0] - first, sizes[1] - (len(kept) - first)]


# ---- whole simulations


def world(mode: str, *, seed: int = 1, host: dict[str, Any] | None = None, **keys: Any) -> Scenario:
    return scenario(vm(mode=mode, memory="16MiB", **keys), seed=seed, memory="64MiB", what_if=True, **(host or {}))


def steps() -> Script:
    """A page in each of 40 times 2 MiB is written and its mapping undone, twice: tables come and go."""
    pages = [512 * number for number in range(40)]
    return Script([*touches(pages, WRITE), ("unmap", 0, 512 * 40), *touches(pages, WRITE)])


@pytest.mark.parametrize("populate", ["lazy", "eager"])
@pytest.mark.parametrize("mode", GUESTS)
def test_every_mode_has_its_guest_s_tables_scattered(mode: str, populate: str) -> None:
    """What a guest does is the same, and so are its counts; where its tables lie is not."""
    made = {}
    for span in ("0", "4MiB"):
        simulation, outcome = run(world(mode, table_span=span, populate=populate), [steps()], every=50_000)
        assert time_adds_up(outcome)
        (made[span],) = rows("summary", outcome)
        assert made[span]["finished"]
        assert simulation.vms[0].frames.kept == (512 if span == "4MiB" else 0)
    same = ("accesses", "guest_faults", "walks", "l2_tlb_misses")
    assert [made["0"][name] for name in same] == [made["4MiB"][name] for name in same]


@pytest.mark.parametrize("mode", GUESTS)
def test_every_mode_has_its_guest_s_pages_in_single_frames(mode: str) -> None:
    simulation, outcome = run(world(mode, fragmentation=1.0), [steps()], every=50_000)
    assert time_adds_up(outcome)
    assert rows("summary", outcome)[0]["finished"]
    assert simulation.vms[0].frames.kept == 2048


@pytest.mark.parametrize("mode", ["native", "paired", "ept"])
def test_the_host_s_tables_are_scattered_too(mode: str) -> None:
    """Those of a program on it, and nested ones that are made before the start."""
    pfns = []
    own = (
        {"paired": {"layout": "pointer"}} if mode == "paired" else {}
    )  # else tables of two pages, for which no hole is
    for span in ("0", "16MiB"):
        what = world(mode, host={"table_span": span}, populate="eager", **own)
        simulation, outcome = run(what, [steps()], every=50_000)
        assert time_adds_up(outcome)
        booted = Simulation(what)
        assert booted._populate() is None
        records = booted.host.frames
        pfns.append(np.flatnonzero((records["state"] == State.TABLE) & (records["owner"] == 0)))
        assert rows("summary", outcome)[0]["finished"]
        assert simulation.host.free == Simulation(what).host.free
    near, far = pfns
    assert len(near) == len(far) > 3
    assert np.ptp(far) > 4 * np.ptp(near)


def test_a_host_of_several_nodes_can_have_it() -> None:
    keys = divided(1 << 14, 1, 3)
    simulation, outcome = run(
        scenario(vm(mode="native", memory="8MiB"), memory="64MiB", table_span="4MiB", **keys),
        [Script(touches(range(50), WRITE))],
        every=50_000,
    )
    assert rows("summary", outcome)[0]["finished"]
    assert simulation.host.free == simulation.host.size - 512


def test_memory_that_is_plugged_later_holds_nothing_yet() -> None:
    keys = {"virtio_mem": {"region": "8MiB", "size": 0}, "table_span": "4MiB", "fragmentation": 0.5}
    what = scenario(vm(memory="16MiB", **keys), memory="64MiB")
    simulation, outcome = run(what, [Script(touches(range(50), WRITE))], every=50_000)
    assert rows("summary", outcome)[0]["finished"]
    assert simulation.vms[0].frames.kept > 512


def test_another_seed_is_another_placement_for_the_same_guest() -> None:
    def tables(seed: int) -> list[int]:
        simulation, _ = run(world("ept", seed=seed, table_span="4MiB"), [Script(touches([0, 600], WRITE))])
        return [int(root) for root in simulation.vms[0].kernel.own_tables] or [simulation.vms[0].kernel.root]

    assert tables(1) == tables(1)
    assert len({str(tables(seed)) for seed in range(4)}) > 1


def test_a_key_of_guests_goes_where_the_mode_becomes_native() -> None:
    native = world("ept", table_span="2MiB", fragmentation=0.5).with_mode("native")
    assert (native.vms[0].table_span, native.vms[0].fragmentation) == (0, 0.0)


def test_what_is_not_said_changes_nothing() -> None:
    plain, zero = scenario(vm()), scenario(vm(table_span=0, fragmentation=0.0), table_span=0)
    assert plain.canonical() == zero.canonical()
    assert "table_span" not in plain.canonical()
    assert plain.canonical() != world("ept", table_span="2MiB").canonical()


def test_a_frame_that_is_lost_is_noticed() -> None:
    def lose(what: Any, simulation: Simulation, vm: Any) -> None:
        simulation.vms[0].frames.kept = 511
        check_invariants(what, simulation, vm)

    with pytest.raises(BrokenInvariant, match="1 frames of the kernel of vm are neither mapped nor free"):
        run(world("ept", table_span="4MiB"), [steps()], check=lose)


@pytest.mark.parametrize(
    ("mode", "said", "message"),
    [
        ("ept", {"table_span": "3MiB"}, r"table_span \(vm\): 3MiB is not a whole number of pageblocks of 2MiB"),
        ("ept", {"table_span": "16MiB"}, r"table_span > half of the memory \(16MiB > 8MiB\)"),
        ("native", {"table_span": "2MiB"}, r"table_span \(vm\): it has no effect in mode native; leave it out"),
        ("native", {"fragmentation": 0.5}, r"fragmentation \(vm\): it has no effect in mode native; leave it out"),
        (
            "paired",
            {"paired.guest": False, "table_span": "2MiB"},
            r"table_span \(vm\): a paired process without a guest .*expected host.table_span",
        ),
        ("ept", {"fragmentation": 1.5}, r"fragmentation \(vm\): found 1.5"),
    ],
)
def test_what_cannot_be_is_refused(mode: str, said: dict[str, Any], message: str) -> None:
    plain = world(mode)
    with pytest.raises(InputError, match=message):
        plain.replace(**{f"vm.{key}": value for key, value in said.items()})


def test_more_than_half_of_the_host_is_refused() -> None:
    with pytest.raises(InputError, match=r"host.table_span: table_span > half of the memory \(34MiB > 32MiB\)"):
        world("ept").replace(**{"host.table_span": "34MiB"})
