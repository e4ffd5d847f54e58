"""Does a page cache read, keep and write what Linux's does, in every mode, and lose nothing that was written?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.page_cache import Cache
from tests.simulation.small import PAGE, READ, Script, Threads, run, scenario, vm
from vmsim.base.errors import InputError
from vmsim.engine.simulation import Simulation
from vmsim.guest.readahead import ReadAhead
from vmsim.host.io import HostIo
from vmsim.machine.formats import PRESENT
from vmsim.record.outcome import VmOutcome
from vmsim.scenario import Scenario

MODES = ("native", "ept", "npt", "shadow", "agile", "paired", "vkernel")
PAUSE = ("compute", 50_000_000)  # longer than any disk takes


def host(mode: str = "ept", *, vcpus: int = 1, frames: int = 1024, **files: Any) -> Scenario:
    given = {"disk": "nvme"} | files
    return scenario(
        vm(mode=mode, memory=frames * PAGE, vcpus=vcpus, files=given),
        memory="16MiB",
        cores=vcpus,
        what_if=True,
    )


def counts(figures: VmOutcome) -> dict[str, int]:
    return figures.figures.named("page_cache")


def windows(order: list[int], wanted: int, most: int) -> list[tuple[int, int]]:
    """Return what is read for a program that reads pages in some order: first pages and counts."""
    trail, marks, there, found = ReadAhead(most), set[int](), set[int](), []
    for index in order:
        window = None
        if index not in there:
            window = trail.miss(index, wanted)
        elif index in marks:
            window = trail.reached(index, wanted)
        if window:
            marks.discard(index)
            marks.add(window.marked)
            there.update(range(window.first, window.first + window.pages))
            found.append((window.first, window.pages))
        trail.previous = index
    return found


def test_windows_double_up_to_the_limit_as_of_linux() -> None:
    """By hand from get_init_ra_size and get_next_ra_size, of 128 KiB: 4 pages for one, 8 for four, then twice that."""
    assert windows([*range(100)], 1, 32)[:5] == [(0, 4), (4, 8), (12, 16), (28, 32), (60, 32)]
    assert windows([0, 4, 8, 12, 16, 20, 24, 28], 4, 32)[:3] == [(0, 8), (8, 16), (24, 32)]


def test_pages_out_of_order_bring_no_others() -> None:
    assert windows([70, 10, 40, 90], 1, 32) == [(70, 1), (10, 1), (40, 1), (90, 1)]
    assert windows([*range(5)], 1, 0) == [(index, 1) for index in range(5)]


@pytest.mark.parametrize("mode", MODES)
def test_a_file_read_in_order_takes_18_requests_and_is_read_once_in_every_mode(mode: str) -> None:
    """Of 512 pages, four at a time: 8 and 16 pages, then 32 at a time; the second time all are there."""
    steps: list[Any] = [("open_file", 1, 0, 512 * PAGE)]
    steps += [("read_file", 1, first * PAGE, 4 * PAGE) for _ in range(2) for first in range(0, 512, 4)]
    _, outcome = run(host(mode), [Script([*steps, ("touch", 0, READ)])])
    (figures,) = outcome.vms
    assert figures.finished
    found = counts(figures)
    assert (found["reads"], found["misses"], found["read_in"], found["read_ahead"]) == (1024, 1, 512, 511)
    assert figures.figures.named("disk")["requests"] == 18
    cost = Scenario.from_tables(host(mode)._data()).cpu.cost
    calls, pages = 1 + 256, 1024
    spent = calls * cost.file_call + pages * (cost.file_page + cost.copy_page) + 512 * cost.file_page
    assert 0 <= figures.cycles["files"] - spent <= 18 * cost.ipi_handle
    if mode == "native":
        assert figures.cycles["exit"] == 0
    elif mode != "vkernel":
        assert figures.figures.named("exits")["IO"] == 18


operations = st.one_of(
    st.tuples(st.just("open_file"), st.integers(1, 2), st.just(0), st.integers(1, 60 * PAGE)),
    st.tuples(
        st.sampled_from(["read_file", "read_file", "write_file", "drop_file"]),
        st.integers(1, 2),
        st.integers(0, 40 * PAGE),
        st.integers(1, 12 * PAGE),
    ),
    st.tuples(
        st.sampled_from(["read_file", "write_file"]),
        st.just(1),
        st.integers(0, 9).map(lambda n: n * PAGE),
        st.just(PAGE),
    ),
    st.tuples(st.just("drop_file"), st.integers(1, 2), st.just(0), st.just(0)),
    st.tuples(st.just("sync_file"), st.integers(1, 2)),
)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(operations, min_size=1, max_size=15),
    mode=st.sampled_from(MODES),
    read_ahead=st.sampled_from([0, 8, 32]),
)
def test_what_is_read_kept_and_written_is_the_twins(steps: list[Any], mode: str, read_ahead: int) -> None:
    twin = Cache(read_ahead)
    for step in steps:
        getattr(twin, step[0].removesuffix("_file"))(step[1], *(step[3:] if step[0] == "open_file" else step[2:]))
    script = [each for step in steps for each in (step, PAUSE, ("touch", 0, READ))]
    what = host(mode, read_ahead=read_ahead, dirty_background=100, dirty=100, writeback_every="0s")
    simulation, outcome = run(what, [Script(script)])
    found = counts(outcome.vms[0]) | {"requests": outcome.vms[0].figures.named("disk")["requests"]}
    assert {key: found[key] for key in twin.counts} == dict(twin.counts)
    cache = simulation.vms[0].kernel.files
    assert cache is not None
    assert {(page.file, page.index): page.version for page in cache.pages.values()} == twin.held
    assert {(page.file, page.index) for page in cache.dirty.values()} == twin.dirty
    disk = {(key >> 28, key & (1 << 28) - 1): number for key, number in cache.stored.items()}
    assert disk == twin.disk


@pytest.mark.parametrize(("mode", "vcpus"), [("ept", 2), ("native", 3), ("shadow", 2)])
def test_threads_that_read_and_write_one_file_lose_nothing(mode: str, vcpus: int) -> None:
    """The invariants hold at every audit: what was last written to a page is in memory or on the disk."""
    steps = [
        [
            ("write_file" if (turn + number) % 3 == 0 else "read_file", 1, (turn * 7 + number) % 50 * 1000, 5000)
            for turn in range(60)
        ]
        for number in range(vcpus)
    ]
    scripts = [
        Script([*(each for step in part for each in (step, ("touch", 0, READ))), ("sync_file", 1)]) for part in steps
    ]
    what = host(mode, vcpus=vcpus, dirty_background=0, dirty=1)
    simulation, outcome = run(what, [Threads(scripts)], every=50_021)
    assert outcome.vms[0].finished
    cache = simulation.vms[0].kernel.files
    assert cache is not None
    assert not cache.dirty
    assert cache.stored == cache.written
    assert counts(outcome.vms[0])["throttled"] > 0


def test_a_program_that_writes_more_than_may_be_dirty_waits_for_the_disk() -> None:
    steps: list[Any] = [("write_file", 1, first * PAGE, 16 * PAGE) for first in range(0, 640, 16)]
    waits = {}
    for percent in (5, 100):
        _, outcome = run(host(disk="hdd", dirty_background=2, dirty=percent), [Script([*steps, ("touch", 0, READ)])])
        waits[percent] = counts(outcome.vms[0])["throttled"], outcome.vms[0].cycles["io_wait"]
    assert waits[100] == (0, 0)
    assert min(waits[5]) > 0


def test_dirty_pages_are_written_when_they_are_old_enough() -> None:
    steps: list[Any] = [("write_file", 1, 0, 8 * PAGE), ("compute", 3_000_000), ("touch", 0, READ)]
    steps += [("compute", 60_000_000), ("touch", 0, READ)]
    for expire, written in (("1ms", 8), ("1s", 0)):
        _, outcome = run(host(dirty_expire=expire, writeback_every="200us"), [Script(steps)])
        assert counts(outcome.vms[0])["written_back"] == written


def test_a_file_without_a_disk_is_refused_in_words() -> None:
    what = scenario(vm())
    with pytest.raises(InputError, match=r"read_file.*vm\.files\.disk"):
        Simulation(what, streams=[Script([("read_file", 1, 0, PAGE), ("touch", 0, READ)])]).run()
    workload = {"kind": "files", "footprint": "64KiB", "data": "1MiB", "operations": 1}
    with pytest.raises(InputError, match="needs a disk"):
        Scenario.from_tables({"vm": [{"name": "a", "memory": "4MiB", "mode": "ept", "workload": workload}]})


@pytest.mark.parametrize("mode", ["ept", "shadow"])
def test_a_disk_works_on_memory_that_is_there_however_fast_its_host_takes_it(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the host took between the kernel's last look and the request is back when the device begins."""
    asked: list[bool] = []
    start = HostIo.start

    def begin(self: HostIo, gfns: Any, cycles: int, **more: Any) -> Any:
        assert self.slot
        asked.append(bool((self.slot.backing[gfns] & PRESENT).all()))
        return start(self, gfns, cycles, **more)

    monkeypatch.setattr(HostIo, "start", begin)
    steps: list[Any] = [("open_file", 1, 0, 1 << 20)]
    for place in range(0, 1 << 20, 1 << 15):
        steps += [("write_file", 1, place, 1 << 15), ("sync_file", 1), ("read_file", 1, (place * 7) % (1 << 20), 4096)]
    guest = vm(mode=mode, files={"disk": "nvme"})
    spec = scenario(guest, memory="16MiB", cores=2, what_if=True, reclaim={"rate": 20_000_000, "batch": 512})
    _, outcome = run(spec, [Script(steps)])
    assert outcome.ending is None
    assert sum(asked) == len(asked) > 40
