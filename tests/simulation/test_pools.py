"""What do VMs feel of their page pools, and do pools of any size work?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.small import PAGE, READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.simulation import Simulation

REFILL = 1000 + 2000 + 16 * 712
SWITCH = 3000
TIGHT = {"min": "32KiB", "low": "40KiB", "high": "48KiB"}  # 8, 10, 12 frames


def test_a_vcpu_that_finds_the_pool_empty_is_suspended_and_the_others_run_on() -> None:
    """One core, slices without end: b can only run while a is suspended, and a only after b is done."""
    what = scenario(vm("a"), vm("b", populate="eager"), quantum="100ms")
    work = Script([("touch", 0, READ), ("compute", 1_000_000), ("touch", 0, READ)])
    _, outcome = run(what, [Script(touches(range(5))), work])
    a, b = outcome.vms
    assert b.cycles["pool_wait"] == b.cycles["pcpu_wait"] == 0
    assert b.start == 0
    assert b.finish == sum(b.cycles.values()) > 1_000_000 + SWITCH  # from cycle 0 on, when a found its pool empty
    assert a.waits["pool_wait"] >= 1
    assert a.cycles["pcpu_wait"] == b.finish - REFILL  # its pages were there at REFILL, its core when b was done
    assert a.finish > b.finish
    assert time_adds_up(outcome)


def test_two_suspended_vms_wait_at_the_same_time() -> None:
    what = scenario(vm("a"), vm("b"), cores=2)
    _, outcome = run(what, [Script(touches([0]))] * 2)
    assert [each.cycles["pool_wait"] for each in outcome.vms] == [REFILL, REFILL]


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("pool", [{"min": 0, "max": 1, "batch": 1}, {"min": 1, "max": 1, "batch": 2}])
def test_a_pool_smaller_than_a_request_works(levels: int, pool: dict[str, int]) -> None:
    """The first violation asks for three tables, or four, at once."""
    _, outcome = run(scenario(vm(host_levels=levels), pool=pool), [Script(touches(range(20)))], every=10_000)
    assert outcome.ending is None
    assert outcome.vms[0].finished


def test_a_pool_never_stays_over_its_maximum() -> None:
    def look(simulation: Simulation) -> None:
        for each in simulation.vms:
            assert each.pool is not None
            assert each.pool.level <= max(each.pool.spec.max, each.pool.wanted)

    what = scenario(vm("a"), vm("b", mode="npt"), pool={"min": 6, "max": 10, "batch": 16}, cores=2)
    _, outcome = run(what, [Script(touches(range(100)))] * 2, every=997, look=look)
    levels = [each.level for each in outcome.transfers if each.what == "spare"]
    assert len(levels) > 10
    assert max(levels) <= 10


def test_spare_pages_of_one_vm_go_to_another_when_the_host_is_low() -> None:
    """256 frames; a's pool holds some 190 spare ones, of which it needs few; b needs 120."""
    a = vm("a", memory="1MiB", pool={"min": 1, "max": 256, "batch": 200})
    b = vm("b", memory="1MiB", pool={"min": 4, "max": 32, "batch": 16}, start="1ms")
    what = scenario(a, b, memory="1MiB", watermarks=TIGHT, cores=2)
    idle = Script([("touch", 0, READ), ("compute", 50_000_000), ("touch", 1, READ)])
    _, outcome = run(what, [idle, Script(touches(range(100)))], every=50_000)
    assert outcome.vms[1].finish < 10_000_000 < 50_000_000 < outcome.vms[0].finish
    spare = [each for each in outcome.transfers if (each.vm, each.what) == ("a", "spare")]
    assert sum(each.pages for each in spare) > 0
    assert min(each.level for each in spare) == 1  # down to its minimum, no further


def test_spare_pages_that_were_on_their_way_when_another_vm_began_to_starve_reach_it() -> None:
    a = vm("a", memory="1MiB", pool={"min": 1, "max": 256, "batch": 200})
    b = vm("b", memory="1MiB", pool={"min": 1, "max": 64, "batch": 4})
    what = scenario(a, b, memory="900KiB", watermarks={"min": "4KiB", "low": "8KiB", "high": "12KiB"}, cores=2)
    idle = Script([("touch", 0, READ), ("compute", 50_000_000), ("touch", 1, READ)])
    _, outcome = run(what, [idle, Script(touches(range(30)))])
    assert outcome.vms[1].finish < 10_000_000


def test_starving_vms_go_on_when_another_ends_and_gives_everything_back() -> None:
    """c holds 200 of 256 frames for five million cycles."""
    small = {"memory": "1MiB", "pool": {"min": 2, "max": 16, "batch": 8}}
    c = vm("c", memory="800KiB", populate="eager")
    what = scenario(c, vm("a", **small), vm("b", **small), memory="1MiB", watermarks=TIGHT, cores=3)
    work = Script([("touch", 0, READ), ("compute", 5_000_000), ("touch", 0, READ)])
    _, outcome = run(what, [work, *[Script(touches(range(60)))] * 2], every=100_000)
    assert outcome.ending is None
    assert all(each.finished for each in outcome.vms)
    held, *starved = outcome.vms
    assert min(each.finish for each in starved) > held.finish > 5_000_000
    assert min(each.cycles["pool_wait"] for each in starved) > 4_000_000
    assert time_adds_up(outcome)


def test_a_bare_vm_that_starves_waits_for_the_host() -> None:
    c = vm("c", memory="800KiB", populate="eager")
    what = scenario(c, vm("a", mode="native"), memory="1MiB", watermarks=TIGHT, cores=2)
    work = Script([("touch", 0, READ), ("compute", 5_000_000), ("touch", 0, READ)])
    _, outcome = run(what, [work, Script(touches(range(60)))], every=100_000)
    assert outcome.vms[1].cycles["host_wait"] > 4_000_000
    assert outcome.vms[1].finished
    assert time_adds_up(outcome)


def test_a_vm_that_ends_with_a_refill_in_flight_leaves_nothing_behind() -> None:
    """Its last fault takes the pool below its minimum: it ends before the message has reached the host."""
    pool = {"min": 16, "max": 64, "batch": 16}
    for pages in range(1, 20):
        simulation, outcome = run(scenario(vm(pool=pool)), [Script(touches(range(pages)))])
        assert outcome.vms[0].finished
        assert simulation.host.free == simulation.host.size
        assert not simulation.host.starving


def test_what_is_granted_is_what_comes_back() -> None:
    """Every page of the log: granted to a pool, taken back as spare, given back at the end, or the VM's own."""
    what = scenario(vm("a"), vm("b"), cores=2, pool={"min": 2, "max": 8, "batch": 16})
    _, outcome = run(what, [Script(touches(range(40)))] * 2)
    for each in outcome.vms:
        moved = dict.fromkeys(("grant", "spare", "return"), 0)
        for transfer in outcome.transfers:
            if transfer.vm == each.name:
                moved[transfer.what] += transfer.pages
        # The last return is of all that the VM owned; the pool's pages went back before it.
        assert moved["grant"] == moved["spare"] + moved["return"]
        assert each.memory["pool"] <= 8


pools = st.tuples(st.integers(0, 40), st.integers(1, 60), st.integers(1, 50)).map(
    lambda drawn: {"min": min(drawn[:2]), "max": max(drawn[:2]), "batch": drawn[2]}
)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(pools, st.sampled_from(["ept", "npt"]), st.sampled_from([4, 5])), min_size=1, max_size=3),
    st.integers(90, 500),
    st.integers(0, 40),
    st.integers(1, 2),
)
def test_pools_of_any_size_on_a_host_of_any_size_end(
    vms: list[tuple[dict[str, int], str, int]], frames: int, reserve: int, cores: int
) -> None:
    """They finish, or the host says that it is out of memory; the invariants hold all the time."""
    marks = {key: (1 + reserve + step) * PAGE for key, step in (("min", 0), ("low", 20), ("high", 30))}
    tables = [
        vm(f"vm{number}", mode=mode, host_levels=levels, pool=pool, memory="512KiB")
        for number, (pool, mode, levels) in enumerate(vms)
    ]
    what = scenario(
        *tables,
        memory=frames * PAGE,
        watermarks=marks,
        cores=cores,
        quantum="20us",
        pool={"max": 16, "min": 1},
    )
    steps: list[Any] = [*touches(range(40), WRITE), ("unmap", 5, 10), *touches(range(12))]
    simulation, outcome = run(what, [Script(steps)] * len(vms), every=30_011)
    assert time_adds_up(outcome)
    if outcome.ending is None:
        assert all(each.finished for each in outcome.vms)
        assert simulation.host.free == simulation.host.size
    else:
        assert simulation.host.free <= simulation.scenario.watermarks.min
