"""Does a simulation that runs out of memory say so: who asked for what, and when?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import PAGE, READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.scenario import Scenario

MARKS = {"min": "16KiB", "low": "20KiB", "high": "24KiB"}


def tight(*vms: dict[str, Any], frames: int = 100, **host: Any) -> Scenario:
    return scenario(*vms, memory=frames * PAGE, watermarks=MARKS, pool={"min": 2, "max": 16, "batch": 8}, **host)


@pytest.mark.parametrize("mode", ["native", "ept", "npt"])
def test_a_host_too_small_for_a_lazy_vm_says_who_asked_and_when(mode: str) -> None:
    simulation, outcome = run(tight(vm("big", mode=mode, memory="1MiB")), [Script(touches(range(200)))])
    ending = outcome.ending
    assert ending is not None
    assert (ending.vm, ending.time) == ("big", outcome.end)
    assert ending.asked == ("64 pages" if mode == "native" else "8 pages")
    for said in (
        "big",
        ending.asked,
        f"cycle {ending.time}",
        f"{simulation.host.free} of 100 frames",
        "4 of them",
    ):
        assert said in ending.message
    (figures,) = outcome.vms
    assert not figures.finished
    # The figures up to then are kept: about as many pages touched as there are frames for.
    assert 60 <= figures.counters["accesses"] < 100
    assert figures.guest_faults == figures.counters["accesses"] + 1
    assert 90 <= sum(figures.memory.values()) <= 96
    assert time_adds_up(outcome)


@pytest.mark.parametrize("first", ["native", "ept"])
def test_the_figures_of_vms_that_end_before_are_kept(first: str) -> None:
    what = tight(vm("small", mode=first, memory="256KiB"), vm("big", memory="1MiB", start="10ms"), frames=150)
    _, outcome = run(what, [Script(touches(range(20))), Script(touches(range(200)))])
    small, big = outcome.vms
    assert outcome.ending is not None
    assert outcome.ending.vm == "big"
    assert small.finished
    assert not big.finished
    assert small.counters["accesses"] == 20
    assert small.finish < 20_000_000 < outcome.ending.time
    assert "small" not in outcome.ending.message
    _, alone = run(tight(vm("small", mode=first, memory="256KiB"), frames=150), [Script(touches(range(20)))])
    assert small.cycles == alone.vms[0].cycles


def test_who_is_suspended_for_good_is_said() -> None:
    what = tight(vm("a", memory="1MiB"), vm("b", memory="1MiB"), cores=2)
    _, outcome = run(what, [Script(touches(range(200)))] * 2)
    assert outcome.ending is not None
    assert "Suspended for good: a, b." in outcome.ending.message
    assert [each.finished for each in outcome.vms] == [False, False]
    assert time_adds_up(outcome)


@pytest.mark.parametrize("mode", ["ept", "npt"])
def test_a_host_too_small_for_an_eager_vm_says_so_before_the_clock_starts(mode: str) -> None:
    what = tight(vm("one", memory="128KiB", populate="eager"), vm("two", mode=mode, memory="512KiB", populate="eager"))
    _, outcome = run(what, [Script(touches([0]))] * 2)
    ending = outcome.ending
    assert ending is not None
    assert (ending.vm, ending.time, ending.asked) == ("two", 0, "512KiB")
    assert "of 100 frames are left" in ending.message
    assert outcome.end == 0
    assert [each.counters["accesses"] for each in outcome.vms] == [0, 0]
    assert [each.finished for each in outcome.vms] == [False, False]


def test_a_bare_eager_vm_too_large_for_the_host_says_so() -> None:
    what = tight(vm("bare", mode="native", memory="1MiB", populate="eager"))
    _, outcome = run(what, [Script(touches(range(200)))])
    assert outcome.ending is not None
    assert (outcome.ending.vm, outcome.ending.time, outcome.ending.asked) == ("bare", 0, "1MiB")


def test_an_eager_vm_that_would_start_later_has_no_negative_time() -> None:
    what = tight(vm("late", memory="1MiB", populate="eager", start="1ms"))
    _, outcome = run(what, [Script(touches([0]))])
    assert outcome.vms[0].finish >= outcome.vms[0].start
    assert time_adds_up(outcome)


@pytest.mark.parametrize("mode", ["ept", "npt"])
@pytest.mark.parametrize("populate", ["lazy", "eager"])
def test_a_guest_too_small_for_its_page_tables_says_so(mode: str, populate: str) -> None:
    """32 frames: 29 pages far apart need more tables than are left, though the footprint fits."""
    far = [number * 512 for number in range(29)]
    what = scenario(vm("tiny", mode=mode, memory="128KiB", populate=populate), vm("other"), cores=2)
    simulation, outcome = run(what, [Script(touches(far)), Script(touches(range(50)))])
    ending = outcome.ending
    assert ending is not None
    assert (ending.vm, ending.asked) == ("tiny", "a guest page of 4K")
    assert "128KiB" in ending.message
    tiny, other = outcome.vms
    assert not tiny.finished
    if populate == "eager":
        assert ending.time == 0
        return
    # The other VM runs to its end, and what the failed one had is the host's again.
    assert ending.time == tiny.finish > 0
    assert f"{tiny.counters['accesses']} of 29 accesses" in ending.message
    # Root, PDPT and PD, then a PT and a page for each of the touched: 3 + 2 n frames of 32.
    assert tiny.counters["accesses"] == (32 - 3) // 2
    assert other.finished
    assert other.counters["accesses"] == 50
    assert simulation.host.free == simulation.host.size
    assert time_adds_up(outcome)


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_the_last_frame_can_be_had(mode: str) -> None:
    """A guest (or a bare VM's host) uses every frame for pages or tables before it is out of memory."""
    if mode == "ept":
        what = scenario(vm(memory="128KiB"))
        room = 32 - 4  # frames less tables
    else:
        what = tight(vm(mode=mode, memory="1MiB"))
        room = 100 - 4 - 4  # frames less the min watermark and tables
    _, outcome = run(what, [Script(touches(range(room)))])
    assert outcome.ending is None
    _, outcome = run(what, [Script(touches(range(room + 1)))])
    assert outcome.ending is not None
    assert outcome.vms[0].counters["accesses"] == room


def test_memory_that_comes_back_in_time_is_no_end() -> None:
    """Touch and unmap: many times the host's memory in all, never more than it has at once."""
    steps: list[Any] = []
    for start in range(0, 600, 30):
        steps += [*touches(range(start, start + 30), WRITE), ("unmap", start, 30)]
    for mode in ("native", "ept"):
        what = tight(vm(mode=mode, memory="300KiB"), frames=140)
        _, outcome = run(what, [Script([*steps, ("touch", 0, READ)])], every=100_000)
        assert outcome.ending is None
        assert outcome.vms[0].guest_faults == 601


@pytest.mark.parametrize("mode", ["native", "npt", "shadow", "vkernel"])
@pytest.mark.parametrize("pages", range(20, 26))
def test_a_guest_may_run_out_of_memory_in_a_fork_and_is_whole_but_for_that(mode: str, pages: int) -> None:
    """Fifteen pages and five tables are mapped when the child's five find no room: its entries are copied in part."""
    steps = [*touches(range(2)), ("fork", 5), ("switch", 5), *touches(range(15), WRITE), ("exit", 5)]
    keys = {"mode": mode, "memory": pages * PAGE, "guest_levels": 5, "populate": "eager"}
    _, outcome = run(scenario(vm(**keys)), [Script(steps)])
    assert outcome.ending is not None
    assert "ran out of its own memory" in outcome.ending.message
    assert time_adds_up(outcome)


@pytest.mark.parametrize(("mode", "turns"), [("ept", 1), ("agile", 1), ("shadow", 2), ("vkernel", 2)])
def test_daemons_that_cannot_help_do_not_keep_a_stuck_vm_alive(mode: str, turns: int) -> None:
    """Not even the root of its nested tables is to be had, and a VM that has not booted has nothing to take.

    Where there are no nested tables, the one frame that is free is its own root's, which the reclaimer takes first.
    Then it has looked once more, in vain; an audit goes on for as long as anything happens.
    """
    what = tight(vm("stuck", mode=mode, memory="1MiB"), reclaim={"rate": 100_000})
    what = what.replace(**{"host.watermarks": {"min": "396KiB", "low": "396KiB", "high": "396KiB"}})
    _, outcome = run(what, [Script(touches(range(9)))], every=3_000)
    assert outcome.ending is not None
    assert "Suspended for good: stuck" in outcome.ending.message
    assert outcome.end == turns * what.cpu.frequency // 100_000


@pytest.mark.parametrize(
    ("mode", "keys"),
    [
        ("ept", {"dirty_log": {"method": "write-protect", "every": "20us"}}),
        ("ept", {"dirty_log": {"method": "write-protect", "every": "20us"}, "nx_split": True, "host_page": "2M"}),
        ("agile", {"agile": {"interval": "20us"}}),
    ],
)
def test_nor_do_a_log_a_recovery_or_an_interval(mode: str, keys: dict[str, Any]) -> None:
    """What they do now and then frees nothing for others: the end is where nobody went on."""
    what = tight(vm("stuck", mode=mode, memory="4MiB", **keys))
    simulation, outcome = run(what, [Script(touches(range(200), WRITE))])
    assert outcome.ending is not None
    assert "Suspended for good: stuck" in outcome.ending.message
    (machine,) = simulation.vms
    cause, since = machine.vcpu.since or ("", 0)
    assert cause == "pool_wait"
    assert since <= outcome.end < since + 100_000


def test_a_vm_that_waits_for_a_page_gets_one_that_is_taken_from_another() -> None:
    """One has nearly all of the memory and computes; the other waits until the reclaimer takes some."""
    what = tight(vm("rich", memory="1MiB"), vm("poor", memory="512KiB", start="1ms"), frames=120, cores=2)
    streams = [Script([*touches(range(80), WRITE), ("compute", 900_000_000)]), Script(touches([*range(60)] * 2, WRITE))]
    _, alone = run(what, streams)
    assert alone.vms[1].finish > alone.vms[0].finish
    _, outcome = run(what.replace(**{"host.reclaim": {"rate": 10_000, "batch": 4}}), streams)
    assert outcome.ending is None
    assert outcome.vms[1].finish < outcome.vms[0].finish
