"""Is a host as fragmented as it was asked to be, and what does that do to those who want more than one page?"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.buddy import Buddy
from tests.simulation.small import WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.base.clock import Clock
from vmsim.base.errors import InputError
from vmsim.engine.check.host import BrokenInvariant, check_host
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import MAX_ORDER, PAGEBLOCK, State
from vmsim.host.fragmentation import PageCache, fragment
from vmsim.host.memory import HostMemory
from vmsim.machine.memory import physical_memory
from vmsim.record.tables import rows
from vmsim.scenario import Marks, Scenario

FRAMES = 1 << 13
LAYOUTS = ("contiguous", "pointer", "separate")


def fragmented(share: float, seed: int = 1, frames: int = FRAMES) -> tuple[HostMemory, PageCache]:
    host = HostMemory(Clock(), frames, Marks(0, 0, 0))
    return host, fragment(host, physical_memory(frames), share, seed=seed)


def index(host: HostMemory, order: int) -> float:
    """Return the unusable free space index of an allocator that is told nothing but which frames are free."""
    buddy = Buddy(0, MAX_ORDER, PAGEBLOCK)
    for pfn in np.flatnonzero(host.frames["state"] == State.FREE).tolist():
        buddy._give(pfn, 0)
    sizes = [1 << block for _, block in buddy.free]
    return sum(size for size in sizes if size < 1 << order) / sum(sizes)


@pytest.mark.parametrize("share", [0.03, 0.25, 0.5, 0.9, 1.0])
def test_the_share_asked_for_is_the_index_of_order_1_and_of_all_up_to_2_mib(share: float) -> None:
    """Of the larger orders but for a pageblock of which a part is in single pages."""
    host, _ = fragmented(share)
    assert index(host, 1) == pytest.approx(share, abs=2 / host.free)
    assert index(host, 1) - 2 / host.free <= index(host, 9) <= share + 2 * 512 / host.free
    assert [host.unusable(order) for order in (1, 4, 9)] == pytest.approx([index(host, order) for order in (1, 4, 9)])


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0, 1), seed=st.integers(0, 1 << 62), frames=st.integers(3, 3000))
def test_every_frame_is_free_the_index_or_a_page_of_the_cache(share: float, seed: int, frames: int) -> None:
    host, cache = fragmented(share, seed, frames)
    assert not [*cache.problems()]
    states = np.bincount(host.frames["state"], minlength=5)
    assert states[State.HOST] == len(cache.pages) == len(np.unique(cache.pages))
    assert states[State.TABLE] == -(-len(cache.pages) // 512) or len(cache.pages) % 512 == 0
    assert states[State.FREE] == host.free
    assert states[State.GUEST] == states[State.POOL] == 0
    assert len(cache.pages) == pytest.approx(share / (1 + share) * frames, abs=2 + int(states[State.TABLE]))
    assert (host.frames["owner"][host.frames["state"] != State.FREE] == -1).all()


def test_a_seed_says_which_frames() -> None:
    one, same, other = (fragmented(0.4, seed)[1].pages.tolist() for seed in (1, 1, 2))
    assert one == same
    assert {*one} != {*other}


def test_free_single_pages_lie_in_few_pageblocks_and_on_either_side() -> None:
    host, cache = fragmented(0.5)
    blocks, counts = np.unique(cache.pages >> PAGEBLOCK, return_counts=True)
    assert sorted(counts)[2:] == [256] * (len(blocks) - 2)  # but for the last one, and where the index is
    assert 0.4 < (cache.pages % 2).mean() < 0.6
    taken = host.take(0, 300, State.GUEST)
    assert len(np.unique(np.sign(np.diff(taken)))) == 2  # in no order


@pytest.mark.parametrize("wrong", ["owner", "rmap"])
def test_the_checker_looks_at_the_page_cache(wrong: str) -> None:
    simulation = Simulation(scenario(vm(), fragmentation=0.5))
    assert simulation.page_cache
    check_host(simulation, "here")
    simulation.host.frames[wrong][simulation.page_cache.pages[7]] = 3
    with pytest.raises(BrokenInvariant, match="conservation: the page cache has frame"):
        check_host(simulation, "here")


def test_what_is_not_said_changes_nothing() -> None:
    plain, zero, some = (scenario(vm(), **keys) for keys in ({}, {"fragmentation": 0}, {"fragmentation": 0.5}))
    assert plain.canonical() == zero.canonical() != some.canonical()
    assert "fragmentation" not in plain.canonical()
    simulation = Simulation(plain)
    assert simulation.page_cache is None
    assert simulation.host.free == simulation.host.size


@pytest.mark.parametrize("share", [-0.1, 1.1, "much"])
def test_a_share_is_from_0_to_1(share: Any) -> None:
    with pytest.raises(InputError, match=r"host\.fragmentation"):
        Scenario.from_toml("host.fragmentation = 0.5\n" + VM).replace(**{"host.fragmentation": share})


VM = '[[vm]]\nname = "a"\nmemory = "1MiB"\nmode = "ept"\nworkload = {kind = "gups", footprint = "64KiB", updates = 9}\n'


def test_what_is_left_must_be_above_the_watermarks() -> None:
    text = f'host = {{ memory = "64MiB", watermarks.min = "24MiB", fragmentation = 0.99, pool.max = 64 }}\n{VM}'
    with pytest.raises(InputError, match=r"host\.fragmentation: leaves 33\d\d\dKiB|host\.fragmentation"):
        Scenario.from_toml(text)


@pytest.mark.parametrize(("populate", "said"), [("lazy", "out of memory"), ("eager", "had too little")])
def test_who_runs_out_of_memory_is_told_what_the_page_cache_has(populate: str, said: str) -> None:
    what = scenario(vm(memory="4MiB", populate=populate), memory="4MiB", fragmentation=1.0)
    _, outcome = run(what, [Script(touches(range(900), WRITE))])
    assert outcome.ending
    assert said in outcome.ending.message
    assert re.search(r", 51\d are the page cache's \(host\.fragmentation\)", outcome.ending.message)


# ---- large pages


def large(mode: str, share: float, size: str = "2M", **keys: Any) -> Any:
    """Return the summary of a VM that writes to a page in each of its eight times 2 MiB."""
    page = {"guest_page": size} if mode == "native" else {"host_page": size}
    memory = "18MiB" if mode == "native" else "16MiB"  # a program's page tables are part of its memory
    table = vm(mode=mode, memory=memory, **page, **keys)
    host: Any = {
        "memory": "64MiB",
        "fragmentation": share,
        "pool": {"min": 64, "max": 512, "batch": 64},
        "what_if": True,
    }
    script = Script(touches([512 * number for number in range(8)], WRITE))
    simulation, outcome = run(scenario(table, **host), [script])
    assert time_adds_up(outcome)
    assert simulation.page_cache is None or not [*simulation.page_cache.problems()]
    return rows("summary", outcome)[0]


@pytest.mark.parametrize("populate", ["lazy", "eager"])
@pytest.mark.parametrize("mode", ["native", "ept", "npt", "shadow", "agile", "paired", "vkernel"])
def test_large_pages_fall_back_to_small_ones_where_no_block_is_free(mode: str, populate: str) -> None:
    """Of memory in single pages alone every large page fails, of whole memory none."""
    whole, single = (large(mode, share, populate=populate) for share in (0.0, 1.0))
    assert whole["large_page_failures"] == 0
    assert whole["guest_frames"] % 512 == 0
    regions = 8 if mode == "native" else whole["guest_frames"] // 512
    assert single["large_page_failures"] == regions
    if populate == "lazy":
        assert single["guest_frames"] < 100
    else:
        assert single["guest_frames"] == (8 if mode == "native" else whole["guest_frames"])


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_large_pages_are_had_while_there_are_blocks(mode: str) -> None:
    """64 MiB, 85 % of it single: 16384 / 1.85 frames are free, and of them 15 % in whole pageblocks, less tables."""
    some = large(mode, 0.85)
    had = some["guest_frames"] // 512
    assert 1 <= had <= 0.15 * 16384 / 1.85 / 512
    asked = 8 if mode == "native" else large(mode, 0.0)["guest_frames"] // 512
    assert some["large_page_failures"] == asked - had


def test_in_place_of_1_gib_there_are_pages_of_2_mib() -> None:
    table = vm(memory="1GiB", host_page="1G")
    host: Any = {"memory": "3GiB", "fragmentation": 0.2, "pool": {"min": 64, "max": 512, "batch": 64}}
    _, outcome = run(scenario(table, **host), [Script(touches([0, 5 * 512], WRITE))], check=None)
    (row,) = rows("summary", outcome)
    assert row["large_page_failures"] == 1
    assert row["guest_frames"] % 512 == 0
    assert 0 < row["guest_frames"] < 8 * 512


# ---- tables of two pages


@pytest.mark.parametrize("guest", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_table_of_two_pages_costs_a_move_where_all_is_in_single_pages(layout: str, guest: bool) -> None:
    table = vm(mode="paired", memory="8MiB", paired={"layout": layout, "guest": guest})
    script = Script(touches([512 * number for number in range(20)], WRITE))
    made = {}
    for share in (0.0, 1.0):
        simulation, outcome = run(scenario(table, memory="32MiB", fragmentation=share), [script])
        assert time_adds_up(outcome)
        (made[share],) = rows("summary", outcome)
        assert made[share]["finished"]
    whole, single = made[0.0], made[1.0]
    assert whole["table_frames"] == single["table_frames"]
    counts = ("order_1_failures", "compactions", "pages_moved")
    assert [whole[name] for name in (*counts, "compaction_cycles")] == [0] * 4
    wanted = single["table_frames"] // 2 if layout == "contiguous" else 0
    assert [single[name] for name in counts] == [wanted] * 3
    cost = simulation.scenario.cpu.cost
    least = cost.copy_page + 2 * cost.entry_edit  # the copy, a look at one frame at least, the index: no shootdown
    assert wanted * least <= single["compaction_cycles"] <= wanted * (least + cost.entry_edit)
    cause = "exit_cycles" if guest else "guest_fault_cycles"
    assert single[cause] - whole[cause] == single["compaction_cycles"]


def test_failures_in_the_warm_up_are_left_out() -> None:
    table = vm(mode="paired", memory="8MiB", paired={"layout": "contiguous", "guest": False})
    script = Script(touches([512 * number for number in range(20)], WRITE))
    _, outcome = run(scenario(table, memory="32MiB", fragmentation=1.0, warmup=15), [script])
    (row,) = rows("summary", outcome)
    assert row["order_1_failures"] == row["compactions"] == 5


def test_processes_that_compact_leave_the_host_as_it_was() -> None:
    """Several at once, with and without guests, checked at every boundary: all frames but the cache's come back."""
    tables = [
        vm(f"vm-{number}", mode="paired", memory="4MiB", paired={"layout": "contiguous", "guest": bool(number % 2)})
        for number in range(4)
    ]
    script = Script([*touches([512 * number for number in range(25)], WRITE), ("unmap", 0, 5000)])
    simulation, outcome = run(
        scenario(*tables, memory="16MiB", fragmentation=1.0, cores=2), [script] * 4, every=100_000
    )
    assert all(each.finished for each in outcome.vms)
    kept = simulation.page_cache
    assert kept
    assert simulation.host.size - simulation.host.free == 2 + len(kept.pages) + -(-len(kept.pages) // 512)
    made = rows("summary", outcome)
    assert all(row["compactions"] == row["order_1_failures"] for row in made)
    assert sum(row["compactions"] for row in made) > 25
    assert sum(row["pages_moved"] for row in made) >= sum(row["compactions"] for row in made)
