"""What do VMs feel of their page pools, and do pools of any size work?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.small import PAGE, READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.engine.simulation import Simulation
from vmsim.record.messages import Kind
from vmsim.workloads import Kind as Access

FETCH = int(Access.FETCH)
REFILL = 2435 + 1650 + 16 * (295 + 1438)
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


SPARSE = [512 * number for number in range(40)]
REST = [("compute", 400_000), ("touch", 0, READ)] * 4
FORKED = [("fork", 2), ("switch", 2), *touches(SPARSE, WRITE), ("exit", 2)]
GIVE_BACK: dict[str, tuple[dict[str, Any], list[Any]]] = {  # pages to its pool
    "shadow pages": ({"mode": "shadow", "shadow": {"preset": "plex86"}}, [*touches(SPARSE, WRITE), *FORKED, *REST]),
    "a map": ({"mode": "vkernel"}, [*touches(range(20), WRITE), *FORKED, *REST]),
    "tables of split pages": (
        {
            "populate": "eager",
            "host_page": "2M",
            "dirty_log": {"method": "write-protect", "every": "10us", "stop": "20us", "split": "eager"},
        },
        [*touches(range(20), WRITE), *REST],
    ),
    "tables of executable pages": (
        {
            "populate": "eager",
            "host_page": "2M",
            "guest_page": "2M",
            "nx_split": True,
            "nx_recovery_period": "50us",
            "nx_recovery_ratio": 1,
        },
        [*[("touch", page, FETCH) for page in SPARSE[:8]], *REST],
    ),
}


@pytest.mark.parametrize("what", GIVE_BACK)
def test_a_pool_never_stays_over_its_maximum(what: str) -> None:
    """Whatever the monitor gives back; what a suspended vCPU waits for is kept together meanwhile."""
    keys, steps = GIVE_BACK[what]
    keys = {"memory": "32MiB", "pool": {"min": 2, "max": 5, "batch": 4}, **keys}
    host = scenario(vm(**keys), memory="64MiB", quantum="5us", cpu="skylake-x")
    simulation = Simulation(host, streams=[Script(steps)])
    env, pool, levels = simulation.env, simulation.vms[0].pool, list[int]()
    step = env.step

    def watched() -> None:
        step()
        levels.append(pool.level - pool.wanted if pool else 0)

    env.step = watched  # type: ignore[method-assign]
    outcome = simulation.run()
    assert outcome.ending is None
    assert 3 <= max(levels) <= 5
    assert [each for each in outcome.transfers if each.what == "spare"]


@pytest.mark.parametrize("pool", [(0, 1, 256), (1, 1, 1), (4, 8, 256)])
def test_every_wait_is_a_call_and_no_page_is_granted_to_be_taken_back(pool: tuple[int, int, int]) -> None:
    given = dict(zip(("min", "max", "batch"), pool, strict=True))
    _, outcome = run(scenario(vm(memory="8MiB", pool=given), memory="32MiB"), [Script(touches(range(300), WRITE))])
    (figures,) = outcome.vms
    said = Counter(each.kind for each in outcome.messages)
    assert said[Kind.NEED_PAGES] >= figures.waits["pool_wait"] > 0
    assert said[Kind.SPARE] == 0
    granted = sum(each.pages for each in outcome.messages if each.kind == Kind.GRANT)
    assert 0 <= granted - sum(figures.memory.values()) <= given["max"]  # the last one may be on its way
    assert max(each.pages for each in outcome.messages if each.kind == Kind.GRANT) <= given["max"] + 4


def test_a_vm_that_starves_gets_what_another_monitor_puts_in_its_pool() -> None:
    """Nothing is left, and a gives up an address space: its maps are tables, which are pages of its pool then."""
    a = vm("a", mode="vkernel", memory="1MiB", pool={"min": 0, "max": 256, "batch": 1})
    b = vm("b", memory="1MiB", pool={"min": 0, "max": 64, "batch": 1}, start="2ms")
    what = scenario(a, b, memory="512KiB", watermarks={"min": "4KiB", "low": "8KiB", "high": "12KiB"}, cores=2)
    child = [("fork", 2), ("switch", 2), *touches([40, 5000, 70000], WRITE), ("compute", 20_000_000), ("exit", 2)]
    last = [("compute", 50_000_000), ("touch", 0, READ)]
    simulation, outcome = run(what, [Script([*touches(range(30), WRITE), *child, *last]), Script(touches(range(70)))])
    del simulation
    waited = next(each for each in outcome.vms if each.name == "b")
    assert waited.waits["pool_wait"] > 0
    assert [each for each in outcome.transfers if (each.vm, each.what) == ("a", "spare")]


@pytest.mark.parametrize("mode", ["ept", "npt", "shadow", "agile", "paired", "vkernel"])
def test_every_frame_of_a_large_page_is_granted_by_a_message(mode: str) -> None:
    """What a VM has at its end was granted, in pages of either size; a paired VM's tables are its host's own."""
    what = scenario(vm(mode=mode, memory="16MiB", host_page="2M"), memory="64MiB")
    _, outcome = run(what, [Script(touches([0, 600, 1200], WRITE))])
    (figures,) = outcome.vms
    pages = Counter[Kind]()
    for each in outcome.messages:
        pages[each.kind] += each.pages
    assert pages[Kind.GRANT_LARGE] == pages[Kind.NEED_LARGE] == figures.memory["guest"] - figures.memory["guest"] % 512
    own = figures.memory["table"] if mode == "paired" else 0
    assert pages[Kind.GRANT] + pages[Kind.GRANT_LARGE] - pages[Kind.SPARE] == sum(figures.memory.values()) - own


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
