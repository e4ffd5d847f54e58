"""Does a VM that its host limits stay below, is it slowed down as Linux would, and does it end where nothing helps?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import PAGE, READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.host.limits import high_delay

MODES = ("native", "ept", "npt", "shadow", "agile", "vkernel")
PAGES = 300
POOL = {"min": 2, "max": 8, "batch": 4}


def steps(rounds: int = 2) -> list[Any]:
    return [step for _ in range(rounds) for step in touches(range(PAGES), WRITE)]


def limited(mode: str, *, swap: dict[str, Any] | None = None, supply: str = "grant", **keys: Any) -> Any:
    """Return a host with memory enough for two VMs, one of which is limited."""
    tables = [vm("a", mode=mode, memory="4MiB", **keys), vm("b", mode=mode, memory="4MiB")]
    pool = POOL if supply == "grant" else {"supply": supply}
    given: dict[str, Any] = {"swap": {"device": "nvme"} | swap} if swap is not None else {}
    return scenario(*tables, memory="16MiB", cores=4, pool=pool, what_if=True, **given)


def watched(what: Any, streams: list[Any], period: int = 20_011) -> tuple[Simulation, Any, int]:
    """Run, and return the most pages that the first VM has had at any time that somebody looked."""
    simulation, most = Simulation(what, streams=streams), 0

    def look() -> Any:
        nonlocal most
        while True:
            yield simulation.env.background(period)
            most = max(most, sum(simulation.host.count(0).values()))

    simulation.env.process(look())
    return simulation, simulation.run(), most


@pytest.mark.parametrize(
    ("usage", "high", "pages", "milliseconds"),
    [
        (100, 100, 64, 0),
        (25_856, 25_600, 64, 6),  # the kernel's table over calculate_high_delay: 100M, of 4 KiB pages; 101M: 6 ms
        (26_112, 25_600, 64, 25),
        (28_160, 25_600, 64, 639),
        (29_696, 25_600, 64, 1638),
        (30_720, 25_600, 64, 2000),
        (28_160, 25_600, 32, 319),
        (10, 0, 64, 2000),
    ],
)
def test_how_long_who_is_above_high_sleeps(usage: int, high: int, pages: int, milliseconds: int) -> None:
    assert high_delay(usage, high, pages) == milliseconds


@pytest.mark.parametrize(("mode", "vcpus"), [*((mode, 1) for mode in MODES), ("ept", 2), ("native", 2)])
@pytest.mark.parametrize("key", ["memory_high", "memory_max"])
def test_a_vm_is_kept_below_its_limit_by_taking_its_pages(mode: str, vcpus: int, key: str) -> None:
    """The other one has memory, and keeps it."""
    limit = 200
    keys: dict[str, Any] = {key: limit * PAGE}
    what = limited(mode, swap={}, vcpus=vcpus, **keys)
    simulation, outcome, most = watched(what, [Script(steps())] * 2)
    assert outcome.ending is None
    one, other = outcome.vms
    assert one.counters["accesses"] == 2 * PAGES
    counts = one.figures.named("memory_limit")
    assert counts["high" if key == "memory_high" else "max"] > 0
    assert (counts["oom_kill"], counts["throttled"]) == (0, 0)
    assert 0 < PAGES - limit < one.figures.named("swap")["swapped_out"]
    assert other.figures.named("swap")["swapped_out"] == 0
    slack = 8 * vcpus  # pages that come from the device are charged when they are there
    if key == "memory_high":  # up to a tenth above it a page that comes from the device is not worth a sleep
        slack += limit // 10
        assert high_delay(limit + limit // 10, limit, 1) <= 10 < high_delay(limit + limit // 9, limit, 1)
    assert limit - 64 < most <= limit + slack
    assert one.finish > other.finish
    assert (simulation.host.frames["state"] == State.FREE).all()
    if vcpus == 1:
        assert time_adds_up(outcome)


@pytest.mark.parametrize("mode", ["native", "ept", "shadow"])
@pytest.mark.parametrize("supply", ["grant", "fault"])
def test_without_a_swap_device_a_vm_at_its_maximum_is_ended_alone(mode: str, supply: str) -> None:
    what = limited(mode, supply=supply, memory_max=200 * PAGE)
    simulation, outcome, most = watched(what, [Script(steps())] * 2)
    assert outcome.ending is not None
    assert "vm.memory_max = 800KiB" in outcome.ending.message
    assert [each.finished for each in outcome.vms] == [False, True]
    assert outcome.vms[0].figures.named("memory_limit")["oom_kill"] == 1
    assert most <= 210
    assert (simulation.host.frames["state"] == State.FREE).all()


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_without_a_swap_device_a_vm_above_high_sleeps_and_goes_on(mode: str) -> None:
    """By hand: above 200 pages each batch sleeps by the square of the overage, at most 2 s."""
    what = limited(mode, supply="fault", memory_high=250 * PAGE)
    simulation, outcome, _ = watched(what, [Script(steps(1))] * 2, 40_000_003)
    assert outcome.ending is None
    one, other = outcome.vms
    counts, frequency = one.figures.named("memory_limit"), what.cpu.frequency
    assert counts["throttled"] > 0
    assert counts["throttled"] % (frequency // 1000) == 0
    assert counts["throttled"] <= counts["high"] * 2 * frequency
    assert one.finish - other.finish >= counts["throttled"] * 0.99
    assert (simulation.host.frames["state"] == State.FREE).all()


def test_a_full_device_ends_the_vm_at_its_maximum() -> None:
    what = limited("ept", swap={"size": 32 * PAGE}, memory_max=150 * PAGE)
    simulation, outcome, _ = watched(what, [Script(steps())] * 2)
    assert outcome.ending is not None
    assert [each.finished for each in outcome.vms] == [False, True]
    assert (simulation.host.frames["state"] == State.FREE).all()
    assert simulation.vms[0].pages.swapped.swap.area.used == 0  # type: ignore[union-attr]


def test_limits_keep_every_invariant() -> None:
    what = limited("ept", swap={"policy": "mglru"}, memory_max=180 * PAGE, memory_high=150 * PAGE)
    script = Script([*steps(1), *touches(range(0, PAGES, 3), READ), *steps(1)])
    _, outcome = run(what, [script] * 2, every=1_000_003)
    assert outcome.ending is None


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"memory_max": 100}, "less than a page"),
        ({"memory_high": 100}, "less than a page"),
        ({"memory_max": "1MiB", "populate": "eager"}, 'expected populate = "lazy"'),
    ],
)
def test_what_cannot_be_asked_for(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        limited("ept", **keys)
