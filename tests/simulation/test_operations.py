"""Do a stream's operations happen when and where the stream says?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.simulation.small import BASE, PAGE, READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.workloads import Chunk, Event, Op

TIGHT = {"min": "4KiB", "low": "8KiB", "high": "12KiB"}
MODES = ["native", "ept", "npt"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_where_chunks_end_does_not_matter(mode: str, chunk: int) -> None:
    steps: list[Any] = [
        *touches(range(10), WRITE),
        ("unmap", 2, 3),
        *touches(range(10)),
        ("compute", 999),
        ("touch", 1, READ),
    ]
    figures = [run(scenario(vm(mode=mode)), [Script(steps, chunk=size)])[1].vms[0] for size in (chunk, 1 << 16)]
    assert figures[0].cycles == figures[1].cycles
    assert figures[0].counters == figures[1].counters
    assert figures[0].guest_faults == 13


def test_operations_at_the_ends_of_a_stream_are_carried_out() -> None:
    steps: list[Any] = [
        ("compute", 100),
        ("unmap", 0, 5),
        ("touch", 0, READ),
        ("unmap", 0, 1),
        ("compute", 1000),
    ]
    _, outcome = run(scenario(vm(workload={"compute": 0})), [Script(steps)])
    assert outcome.vms[0].cycles["compute"] == 1100
    # An unmap costs the kernel's work for each page that was there: one.
    _, without = run(scenario(vm(workload={"compute": 0})), [Script([steps[2]])])
    assert outcome.vms[0].cycles["guest_fault"] - without.vms[0].cycles["guest_fault"] == 532


def test_operations_of_processes_that_are_not_there_change_nothing() -> None:
    """As a recording of one process has them of its children."""
    others = {Op.SWITCH, Op.THREAD, Op.COMPUTE, *(op for op in Op if op.name.endswith("_FILE"))}  # files need a disk

    class Rest(Script):
        def chunks(self, thread: int = 0) -> Any:
            (chunk,) = super().chunks()
            events = tuple(Event(3, op, 7, BASE, PAGE, 0) for op in Op if op not in others)
            yield Chunk(chunk.address, chunk.count, chunk.kind, events)

    plain, odd = (run(scenario(vm()), [kind(touches(range(6)))])[1].vms[0] for kind in (Script, Rest))
    assert plain.cycles == odd.cycles


@pytest.mark.parametrize("mode", MODES)
def test_a_long_compute_does_not_hold_the_core_longer_than_others_allow(mode: str) -> None:
    """Both compute for 10 ms in all, in steps of a fifth of a slice: they are done within a slice of each other."""
    steps = [step for _ in range(100) for step in (("compute", 200_000), ("touch", 0, READ))]
    what = scenario(vm("a", mode=mode), vm("b", mode=mode), quantum="500us")
    _, outcome = run(what, [Script(steps)] * 2)
    a, b = outcome.vms
    assert abs(a.finish - b.finish) <= 1_000_000 + 200_000 + 100_000
    assert time_adds_up(outcome)


def test_memory_unmapped_natively_is_the_hosts_when_the_vcpu_gets_there_not_before() -> None:
    """a gives 90 pages back at cycle 10 M; b needs 30 at cycle 1 M, and the host has 27 left."""
    a = Script([*touches(range(122)), ("touch", 99, READ, 10_000_000), ("unmap", 0, 90), ("touch", 99, READ)])
    b = Script([("compute", 1_000_000), *touches(range(30))])
    what = scenario(
        vm("a", mode="native"),
        vm("b", mode="native"),
        memory="640KiB",
        cores=2,
        watermarks=TIGHT,
        quantum="100ms",
    )
    _, outcome = run(what, [a, b])
    assert outcome.ending is None
    assert outcome.vms[1].finish > 10_000_000
    assert outcome.vms[1].cycles["host_wait"] > 8_000_000


def test_two_bare_vms_that_want_the_last_large_block_both_go_on() -> None:
    """The second falls back to small pages, and pays for clearing what it got."""
    tables = [vm(name, memory="3MiB", mode="native", guest_page="2M") for name in "ab"]
    what = scenario(*tables, memory="5MiB", cores=2, watermarks=TIGHT)
    _, outcome = run(what, [Script(touches([0]))] * 2, every=10_000)
    a, b = outcome.vms
    assert a.memory["guest"] == 512
    assert a.cycles["guest_fault"] == 2050 + 512 * 340 + 2 * 635
    assert b.cycles["guest_fault"] == 2050 + 340 + 3 * 635


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("last", "pages", "flushed"), [(0, 1, 0), (32, 33, 0), (33, 34, 10), (9_000, 9_001, 10), (32, 1 << 24, 0)]
)
def test_33_pages_are_invalidated_one_by_one_and_more_by_a_flush_of_all(
    mode: str, last: int, pages: int, flushed: int
) -> None:
    """Linux counts from the first page that it has cleared to the last (mm/mmu_gather.c), whatever the call named."""
    rest = touches(range(10))
    ends = sorted({500, 500 + last})
    warm = [*touches([*range(10), *ends], WRITE), *rest]
    misses = []
    for steps in ([*warm, ("compute", 1), *rest], [*warm, ("unmap", 500, pages), *rest]):
        _, outcome = run(scenario(vm(mode=mode)), [Script(steps)])
        assert outcome.vms[0].guest_faults == 10 + len(ends)
        misses.append(outcome.vms[0].counters["l2_tlb_misses"])
    assert misses[1] - misses[0] == flushed


@pytest.mark.parametrize("mode", MODES)
def test_pages_freed_by_unmap_are_used_again(mode: str) -> None:
    """A thousand pages in turn through a guest of 100."""
    steps: list[Any] = []
    for start in range(0, 1000, 20):
        steps += [*touches(range(start, start + 20)), ("unmap", start, 20)]
    _, outcome = run(scenario(vm(mode=mode, memory="400KiB")), [Script(steps)], every=200_000)
    assert outcome.ending is None
    assert outcome.vms[0].guest_faults == 1000
    assert outcome.vms[0].memory["guest"] <= 128


def test_every_access_of_a_stream_is_made_in_order() -> None:
    """Writes and reads counted, whatever the slices: a budget never loses or repeats a run."""
    rng = np.random.default_rng(3)
    steps = [
        ("touch", int(page), int(kind), int(times))
        for page, kind, times in rng.integers((0, 0, 1), (50, 2, 9), (500, 3))
    ]
    writes = sum(step[3] for step in steps if step[2] == WRITE)
    for quantum in ("1us", "7us", "10ms"):
        what = scenario(vm("a"), vm("b", mode="native"), quantum=quantum)
        _, outcome = run(what, [Script(steps)] * 2)
        for figures in outcome.vms:
            assert figures.counters["accesses"] == sum(step[3] for step in steps)
            assert figures.counters["writes"] == writes
