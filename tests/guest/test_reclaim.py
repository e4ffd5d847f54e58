"""Does a guest's kernel that is short of memory take the pages that Linux would, in every mode, and lose none?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import PAGE, READ, WRITE, Script, Threads, run, scenario, time_adds_up, touches, vm
from vmsim.base.errors import InputError
from vmsim.engine.guest_swap import GuestSwapped
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.guest.reclaim import Sizes, scan_counts, watermarks
from vmsim.host.swap.native_pages import SwappedSpaces
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario

MODES = ("ept", "npt", "shadow", "agile", "paired", "vkernel")
FRAMES = 600  # of each guest
SWAP = {"policy": "two-list", "swap": "nvme"}


def host(mode: str = "ept", *, vcpus: int = 1, vms: int = 1, **keys: Any) -> Scenario:
    tables = [vm(f"vm{number}", mode=mode, memory=FRAMES * PAGE, vcpus=vcpus, **keys) for number in range(vms)]
    return scenario(*tables, memory="16MiB", cores=vcpus, what_if=True)


def figures(outcome: Outcome, name: str, number: int = 0) -> dict[str, int]:
    return outcome.vms[number].figures.named(name)


def test_watermarks_are_linuxs() -> None:
    """By hand: isqrt(16 * KiB) KiB; a quarter of it, or 0.1 % of the memory, between one and the next."""
    assert watermarks(4096) == (128, 160, 192)  # 16 MiB: 512 KiB
    assert watermarks(1 << 18) == (1024, 1286, 1548)  # 1 GiB: 4 MiB, and 262 pages are 0.1 %


def counts(sizes: Sizes, **keys: Any) -> Sizes:
    usual: dict[str, Any] = {"priority": 2, "swappiness": 60, "swaps": True, "costs": (0, 0), "free": 10, "high": 1}
    return scan_counts(sizes, **usual | {"deactivates": (True, True)} | keys)


def test_what_is_looked_at_follows_swappiness_and_cost_as_in_get_scan_count() -> None:
    """By hand from mm/vmscan.c: shares of 60 and 140 at no cost; each divided by 1 + total + own cost."""
    sizes = Sizes(4000, 2000, 4000, 400)
    assert counts(sizes) == (300, 150, 700, 70)
    assert counts(sizes, swaps=False) == (0, 0, 1000, 100)
    assert counts(sizes, swappiness=0) == (0, 0, 1000, 100)
    assert counts(sizes, swappiness=200) == (1000, 500, 0, 0)
    assert counts(sizes, priority=0) == sizes
    # costs of 30 and 10: 60 * 121 // 71 = 102 and 140 * 121 // 51 = 332, of 434
    assert counts(sizes, costs=(30, 10)) == (1000 * 102 // 434, 500 * 102 // 434, 1000 * 332 // 434, 100 * 332 // 434)
    trimmed = counts(sizes, deactivates=(True, False))  # enough inactive pages of files: those alone
    assert trimmed == (0, 0, 1000, 100)
    tiny = counts(Sizes(4000, 0, 3, 2), deactivates=(False, True), free=10, high=15)  # next to none of files: no more
    assert tiny == (1000, 0, 0, 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_file_of_twice_the_memory_is_read_in_every_mode(mode: str) -> None:
    pages = 2 * FRAMES
    steps: list[Any] = [("open_file", 1, 0, pages * PAGE)]
    steps += [
        each for first in range(0, pages, 8) for each in (("read_file", 1, first * PAGE, 8 * PAGE), ("touch", 0, READ))
    ]
    files = {"disk": "nvme"}
    simulation, outcome = run(host(mode, files=files, reclaim={"policy": "two-list"}), [Script(steps)], every=3_000_017)
    assert outcome.ending is None
    cache, reclaim = figures(outcome, "page_cache"), figures(outcome, "guest_reclaim")
    assert cache["read_in"] == pages
    assert cache["evicted"] == reclaim["stolen"] + reclaim["direct_stolen"] > pages - FRAMES
    assert outcome.vms[0].cycles["reclaim"] > 0
    assert time_adds_up(outcome)
    assert (simulation.host.frames["state"] == State.FREE).all() or mode == "paired"
    _, without = run(host(mode, files=files), [Script(steps)])
    assert without.ending is not None
    assert "ran out of its own memory" in without.ending.message


def follow(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have each page that comes back from swap compared with what went to its slot; return how many have."""
    went: dict[tuple[Any, int], tuple[int, int]] = {}
    back: list[int] = []
    take, bring = SwappedSpaces.take, GuestSwapped.bring

    def taken(self: SwappedSpaces, pfns: Any) -> Any:
        roots, numbers = self.memory.places_of(pfns)
        places = dict(zip(pfns.tolist(), zip(roots.tolist(), numbers.tolist(), strict=True), strict=True))
        found = take(self, pfns)
        for page, slot in zip(found.pages.tolist(), found.slots.tolist(), strict=True):
            went[self, slot] = places[page]
        return found

    def brought(self: GuestSwapped, vcpu: Any, space: Any, number: int, *, write: bool) -> Any:
        slot = space.away.get(number)
        found = yield from bring(self, vcpu, space, number, write=write)
        if found[0] >= 0 and slot is not None:
            assert went[self.slots, slot][1] == number
            back.append(number)
        return found

    monkeypatch.setattr(SwappedSpaces, "take", taken)
    monkeypatch.setattr(GuestSwapped, "bring", brought)
    return back


def each_page_is_somewhere(pages: set[int]) -> Any:
    """Return a look at a host: each page of the first space is mapped or swapped out, or was not touched yet."""
    seen: set[int] = set()

    def look(simulation: Simulation) -> None:
        kernel = simulation.vms[0].kernel
        if not kernel.processes or simulation.vms[0].finish is not None:
            return
        space = kernel.processes[1].space
        if space.entries.writing or space.lock.writing or space.lock._readers:
            return  # one is on its way
        programs = simulation.vms[0].reclaim.reclaim.programs  # type: ignore[union-attr]
        roots, numbers = programs.places_of(programs.present())
        mapped = set(numbers[roots == space.root].tolist())
        away = set(space.away)
        assert not mapped & away
        assert seen <= mapped | away
        seen.update(mapped)

    return look


@pytest.mark.parametrize(("mode", "vcpus"), [*((mode, 1) for mode in MODES), ("ept", 2), ("shadow", 2), ("vkernel", 2)])
def test_programs_of_more_than_the_memory_swap_and_end_in_every_mode(
    mode: str, vcpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = follow(monkeypatch)
    pages = 700
    script = Script([step for _ in range(2) for step in touches(range(pages), WRITE)])
    scripts = [Script(script.steps) for _ in range(vcpus)]
    simulation, outcome = run(
        host(mode, vcpus=vcpus, vms=2 if vcpus == 1 else 1, reclaim=SWAP),
        [Threads(scripts) for _ in range(2 if vcpus == 1 else 1)],
        every=2_000_003,
        look=each_page_is_somewhere(set(range(pages))) if mode in ("ept", "npt") else lambda _: None,
        events=300_000,
    )
    assert outcome.ending is None
    for number in range(len(outcome.vms)):
        counts = figures(outcome, "guest_swap", number)
        assert counts["swapped_out"] >= counts["swapped_in"] >= pages - FRAMES
        assert counts["swapped_in"] == counts["major"] + counts["minor"]
    assert len(back) >= pages - FRAMES
    if vcpus == 1:
        assert time_adds_up(outcome)
    swapped = simulation.vms[0].reclaim.swapped  # type: ignore[union-attr]
    assert swapped is not None
    assert (swapped.swap.writing, swapped.swap.busy) == (0, 0)
    assert (simulation.host.frames["state"] == State.FREE).all() or mode == "paired"


def test_a_child_has_the_pages_that_were_away_when_it_was_made_and_slots_come_back() -> None:
    """Both read all pages: those that were swapped out when the fork came have two users, and none at the end."""
    steps: list[Any] = [*touches(range(700), WRITE), ("fork", 2), ("switch", 2), *touches(range(60), READ)]
    steps += [
        ("exit", 2),
        ("by", 1),
        ("unmap", 0, 700),
        ("touch", 800, WRITE),
        ("compute", 100_000_000),
        ("touch", 800, READ),
    ]
    simulation, outcome = run(host(reclaim=SWAP), [Script(steps)], every=3_000_017, events=300_000)
    assert outcome.ending is None
    swapped = simulation.vms[0].reclaim.swapped  # type: ignore[union-attr]
    assert swapped is not None
    assert swapped.swap.area.most > 100
    assert (swapped.swap.area.used, len(swapped.swap.cache), swapped.held) == (0, 0, 0)


def test_what_is_used_again_and_again_stays_and_a_file_that_is_read_once_goes() -> None:
    """Two hundred pages are written between reads of a file: Linux's lists give the file's pages, and none of those."""
    steps: list[Any] = [("open_file", 1, 0, 1600 * PAGE)]
    for first in range(0, 1600, 40):
        steps += [*touches(range(200), WRITE), ("read_file", 1, first * PAGE, 40 * PAGE)]
    _, outcome = run(host(files={"disk": "nvme"}, reclaim=SWAP), [Script(steps)])
    assert outcome.ending is None
    assert figures(outcome, "page_cache")["evicted"] > 1000
    assert figures(outcome, "guest_swap")["swapped_out"] <= 32


def test_dropping_behind_keeps_what_is_read_again() -> None:
    """A file that is read again and again beside one that is read once: with drop-behind the first is read once."""
    reads = {}
    for drop in (False, True):
        steps: list[Any] = [("open_file", 1, 0, 100 * PAGE), ("open_file", 2, 0, 4000 * PAGE)]
        for first in range(0, 4000, 200):
            if first % 800 == 0:
                steps += [("read_file", 1, 0, 100 * PAGE), ("touch", 0, READ)]
            steps += [("read_file", 2, first * PAGE, 200 * PAGE)]
            steps += [("drop_file", 2, first * PAGE, 200 * PAGE)] if drop else []
        _, outcome = run(host(files={"disk": "nvme", "read_ahead": 0}, reclaim={"policy": "two-list"}), [Script(steps)])
        reads[drop] = figures(outcome, "page_cache")["read_in"] - 4000
    assert reads[True] == 100
    assert reads[False] == 5 * 100


def test_memory_runs_out_when_there_is_nothing_to_take() -> None:
    script = Script(touches(range(700), WRITE))
    _, outcome = run(host(reclaim={"policy": "two-list"}), [script])
    assert outcome.ending is not None
    assert "ran out of its own memory" in outcome.ending.message
    assert figures(outcome, "guest_reclaim")["failed"] == 1
    _, outcome = run(host(reclaim=SWAP | {"swap_size": "64KiB"}), [script])
    assert outcome.ending is not None
    assert figures(outcome, "guest_swap")["swapped_out"] == 16


def test_a_balloon_makes_the_kernel_give_what_it_needs_least() -> None:
    """A guest full of a file that nobody reads again: without reclaim the driver finds none, with it all."""
    pages, balloon = 400, 256
    steps: list[Any] = [
        ("open_file", 1, 0, pages * PAGE),
        ("read_file", 1, 0, pages * PAGE),
        *touches(range(60), WRITE),
    ]
    steps += [each for _ in range(20) for each in (("compute", 4_000_000), *touches(range(60), WRITE))]
    sizes = {}
    for policy in ("none", "two-list"):
        keys: dict[str, Any] = {"reclaim": {"policy": policy, "swap": "nvme"} if policy != "none" else {}}
        what = host(
            files={"disk": "nvme"},
            balloon={"schedule": [["8ms", balloon * PAGE]], "retry": "1ms", "message": 64},
            **keys,
        )
        simulation, outcome = run(what, [Script(steps)], every=5_000_011)
        assert outcome.ending is None
        driver = simulation.vms[0].balloon.driver  # type: ignore[union-attr]
        assert driver is not None
        sizes[policy] = driver.size
        if policy != "none":
            assert figures(outcome, "page_cache")["evicted"] >= pages + 60 + balloon - FRAMES
            assert figures(outcome, "guest_swap")["swapped_out"] <= 10
    assert sizes["two-list"] == balloon
    assert sizes["none"] < balloon


def test_a_balloon_gives_back_when_reclaim_has_failed() -> None:
    steps = [("compute", 30_000_000), *touches(range(450), WRITE)]
    balloon = {"size": 300 * PAGE, "deflate_on_oom": True, "message": 64}
    _, outcome = run(host(balloon=balloon, reclaim={"policy": "two-list"}), [Script([("touch", 0, WRITE), *steps])])
    assert outcome.ending is None
    assert figures(outcome, "balloon_driver")["oom"] > 0


def test_a_program_on_the_host_itself_has_the_hosts_reclaim() -> None:
    with pytest.raises(Exception, match=r"the kernel is the host's"):
        host("native", reclaim={"policy": "two-list"})
    for keys in ({"swap": "nvme"}, {"policy": "two-list", "swappiness": 3}, {"policy": "two-list", "swap": "zram"}):
        with pytest.raises((InputError, ValueError)):
            host(reclaim=keys)


def test_the_host_swaps_too() -> None:
    """Guest and host are both short, and both swap: nothing is lost, and what the guest writes out the host brings."""
    tables = [vm(name, memory=FRAMES * PAGE, reclaim=SWAP) for name in "ab"]
    marks = {"min": 16 * PAGE, "low": 24 * PAGE, "high": 32 * PAGE}
    pool = {"min": 2, "max": 8, "batch": 4}
    what = scenario(*tables, memory=900 * PAGE, cores=2, pool=pool, watermarks=marks, swap={"device": "nvme"})
    script = Script([step for _ in range(2) for step in touches(range(700), WRITE)])
    simulation, outcome = run(what, [script, script], every=5_000_011, events=400_000)
    assert outcome.ending is None
    assert figures(outcome, "swap")["swapped_in"] > 0
    assert figures(outcome, "guest_swap")["swapped_in"] > 0
    assert (simulation.host.frames["state"] == State.FREE).all()
