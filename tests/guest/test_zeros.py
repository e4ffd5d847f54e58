"""Does a read of memory that nothing was written to map the page of zeros, and a write replace it, as in Linux?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.paging import Paging
from tests.simulation.small import READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.guest.kernel import GuestKernel
from vmsim.record.outcome import VmOutcome

MODES = ["native", "ept", "npt", "shadow", "agile", "paired", "vkernel"]
FAULT, CLEAR, TABLE = 2050, 340, 635  # cycles of the yardstick: a fault delivered and handled, 4 KiB cleared, a table


def outcome_of(mode: str, steps: list[Any], *, from_start: bool = True, **keys: Any) -> VmOutcome:
    cpu = "zen2" if mode == "npt" else "yardstick"
    what = scenario(vm(**{"mode": mode, "memory": "8MiB", **keys}), memory="64MiB", cpu=cpu)
    _, outcome = run(what, [Script(steps, from_start=from_start)])
    assert outcome.ending is None
    assert time_adds_up(outcome) or keys.get("vcpus", 1) > 1  # of several, each has the time from start to finish
    return outcome.vms[0]


@pytest.mark.parametrize("mode", MODES)
def test_readers_share_one_frame_and_a_writer_faults_again_for_its_own(mode: str) -> None:
    """By hand: 20 reads fault; of these pages 3 are written to and fault again; 2 more are written to at once."""
    reads, again = touches(range(20)), touches(range(20))
    figures = [outcome_of(mode, steps) for steps in (reads, [*reads, *touches((4, 5, 6, 20, 21), WRITE), *again])]
    assert [each.guest_faults for each in figures] == [20, 20 + 3 + 2]
    filled = outcome_of(mode, reads, from_start=False)
    assert filled.guest_faults == 20
    if mode == "native":  # tables, frames of the list that stand ready, and these: 64 taken at a time
        assert [each.memory["table"] for each in figures] == [4, 4]


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_a_read_clears_nothing_and_the_write_after_it_clears_the_page_it_gets(mode: str) -> None:
    read, both, write = (
        outcome_of(mode, touches([0], READ) if kinds == "r" else [*touches([0], READ), ("touch", 0, WRITE)])
        if kinds != "w"
        else outcome_of(mode, touches([0], WRITE))
        for kinds in ("r", "rw", "w")
    )
    assert read.cycles["guest_fault"] == FAULT + 3 * TABLE
    assert both.cycles["guest_fault"] == 2 * FAULT + 3 * TABLE + CLEAR
    assert write.cycles["guest_fault"] == FAULT + 3 * TABLE + CLEAR
    assert both.figures.named("guest")["copies"] == 0


def test_the_host_backs_one_frame_for_all_readers() -> None:
    """1,000 pages read take the frames of tables and one more, where as many written ones take 1,000."""
    read, written = (outcome_of("ept", touches(range(1000), kind)) for kind in (READ, WRITE))
    assert written.memory["guest"] - read.memory["guest"] == 1000
    few = outcome_of("ept", touches(range(5), READ))
    assert read.memory["guest"] - few.memory["guest"] == 1  # a table more, of the second 2 MiB


@pytest.mark.parametrize("mode", MODES)
def test_a_huge_page_of_zeros_is_shared_and_replaced_by_a_huge_page(mode: str) -> None:
    """Two blocks of 2 MiB are read, a page of one is written: three faults, and no more for the pages beside it."""
    steps = [*touches([0, 1, 512, 513]), ("touch", 3, WRITE), ("touch", 4, WRITE), *touches([0, 1, 512])]
    assert outcome_of(mode, steps, guest_page="2M", memory="16MiB").guest_faults == 3


@pytest.mark.parametrize("mode", ["native", "ept", "shadow"])
def test_a_part_of_a_huge_page_of_zeros_can_go_and_the_rest_is_replaced_page_by_page(mode: str) -> None:
    """Read, 100 pages unmapped: two pages of the rest that are written to fault for themselves; one unmapped does."""
    steps = [*touches([0]), ("unmap", 100, 100), *touches([0, 99, 200]), *touches([1, 2], WRITE), ("touch", 150, READ)]
    assert outcome_of(mode, steps, guest_page="2M", memory="16MiB").guest_faults == 1 + 2 + 1


def test_pages_of_a_gigabyte_have_no_page_of_zeros() -> None:
    """They are hugetlbfs's, which gives a read a page of its own: one fault, no other at the write."""
    what = scenario(vm(mode="native", guest_page="1G", memory="2GiB"), memory="2560MiB")
    _, outcome = run(what, [Script([("touch", 0, READ), ("touch", 1, WRITE)], from_start=True)])
    assert outcome.vms[0].guest_faults == 1


@pytest.mark.parametrize("mode", ["native", "ept", "shadow", "paired"])
@pytest.mark.parametrize("cpus", [1, 2])
def test_mlock_replaces_pages_of_zeros_and_a_fork_shares_them(mode: str, cpus: int) -> None:
    """Four pages read, and populated: 4 + 4 faults. Four others read, forked, written by the child: 4 + 4."""
    steps = [
        ("map", 0, 8),
        *touches(range(4)),
        ("populate", 0, 4),
        *touches(range(4), WRITE),
        *touches(range(4, 8)),
        ("fork", 2),
        ("switch", 2),
        *touches(range(4, 8), WRITE),
        ("exit", 2),
        *touches(range(8)),
    ]
    assert outcome_of(mode, steps, vcpus=cpus).guest_faults == 16


@pytest.mark.parametrize("mode", ["native", "ept", "shadow", "agile", "vkernel"])
def test_compiled_faults_do_what_the_kernels_process_does(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [*touches(range(0, 1500, 3)), *touches(range(0, 1500, 6), WRITE), ("unmap", 30, 10), *touches(range(40))]
    fast = outcome_of(mode, steps)
    shut = GuestKernel.fast

    def slow(self: GuestKernel, cpu: int, bill: Any) -> Any:
        guest = shut(self, cpu, bill)
        guest.demands["open"] = guest.demands["operates"] = 0
        return guest

    monkeypatch.setattr(GuestKernel, "fast", slow)
    plain = outcome_of(mode, steps)
    assert (plain.cycles, plain.guest_faults, plain.memory) == (fast.cycles, fast.guest_faults, fast.memory)


PAGES = st.integers(0, 40)
KINDS = st.sampled_from([1, 3, 9, 11, 17, 19, 25, 27])  # to be read, or written to; shared, of a file, both
PROGRAMS = st.lists(
    st.one_of(
        *[st.tuples(st.just("touch"), PAGES, st.sampled_from([READ, WRITE]))] * 4,
        st.tuples(st.just("map"), PAGES, st.integers(1, 24), KINDS),
        st.tuples(st.just("unmap"), PAGES, st.integers(1, 8)),
        st.tuples(st.just("protect"), PAGES, st.integers(1, 8), st.sampled_from([1, 3])),
        st.tuples(st.just("discard"), PAGES, st.integers(1, 8)),
        st.tuples(st.just("move"), PAGES, st.integers(1, 8), st.integers(50, 60)),
        st.tuples(st.just("populate"), PAGES, st.integers(1, 8)),
    ),
    max_size=40,
).map(lambda steps: [("touch", 0, WRITE), *steps, ("touch", 1, READ)])


@pytest.mark.parametrize("mode", ["native", "ept", "shadow"])
@settings(max_examples=60)
@given(steps=PROGRAMS, zeros=st.booleans())
def test_files_shared_memory_and_zeros_fault_as_a_plain_account_says(mode: str, steps: list[Any], zeros: bool) -> None:
    told = Paging(zeros=zeros).run(Script(steps).chunks())
    assert outcome_of(mode, steps, from_start=zeros).guest_faults == len(told.faults)
