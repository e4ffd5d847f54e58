"""Do policies give each VM its part of an overcommitted host, as their papers say, in every mode?"""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.oracle.esx import revoke
from tests.simulation.small import WRITE, Script, run, scenario, touches, vm
from vmsim.contracts import Statistics
from vmsim.host.policies.esx import Claim, State, allot, next_state
from vmsim.host.policies.esx_table import Esx
from vmsim.host.policies.mom import Mom, grown, shrunk
from vmsim.host.policies.prorata import Prorata
from vmsim.host.policies.table import Mom as Rules
from vmsim.record.outcome import Outcome

MODES = ("ept", "npt", "shadow", "agile", "vkernel", "paired")
QUICK = {"cost": {"balloon_message": 20_000}}
PER_MB = 256


def figures(outcome: Outcome, component: str, number: int = 0) -> dict[str, int]:
    return outcome.vms[number].figures.named(component)


def test_shares_and_the_idle_memory_tax_by_hand() -> None:
    """Two VMs of 256 MB share 358 MB (Waldspurger, fig. 7): 10 MB of one are in use, 198.1 MB of the other.

    Without a tax each has half. With 75 % an idle page costs four: 10 + (y - 10) / 4 + 198.1 + (y - 198.1) / 4 = 358.
    """
    claims = [Claim(1000, use * PER_MB, 0, 256 * PER_MB) for use in (10, 198.1)]
    assert allot(claims, 358 * PER_MB, 0) == [179 * PER_MB] * 2
    y = (358 - 3 / 4 * (10 + 198.1)) * 2
    expected = [use + (y - use) / 4 for use in (10, 198.1)]
    assert [part / PER_MB for part in allot(claims, 358 * PER_MB, 75)] == pytest.approx(expected, abs=0.01)


def test_nobody_has_more_than_it_can_use_nor_less_than_it_must() -> None:
    claims = [Claim(1000, 0, 50, 300), Claim(1, 0, 40, 300), Claim(1000, 0, 0, 20)]
    assert allot(claims, 200, 0) == [140, 40, 20]
    assert allot(claims, 700, 75) == [300, 300, 20]


def test_parts_are_those_of_taking_page_after_page_from_who_has_fewest_shares_for_one() -> None:
    random = Random(3)
    for _ in range(40):
        vms = []
        for _ in range(random.randint(1, 5)):
            most = random.randint(1, 400)
            vms.append((random.randint(1, 9), random.uniform(0, most), random.randint(0, most), most))
        pages, tax = random.randint(0, sum(most for *_, most in vms)), random.choice([0, 50, 75])
        least = sum(least for _, _, least, _ in vms)
        mine, twins = allot([Claim(*each) for each in vms], max(pages, least), tax), revoke(vms, max(pages, least), tax)
        assert max(abs(one - other) for one, other in zip(mine, twins, strict=True)) <= len(vms) + 1, (vms, pages, tax)


def test_a_host_is_less_short_again_only_well_above_the_next_threshold() -> None:
    """6, 4, 2 and 1 percent, and a tenth more on the way back."""
    table, state, seen = Esx(), State.HIGH, []
    for free in (5.0, 3.9, 5.0, 6.5, 6.7, 1.9, 0.5, 2.1, 2.3, 4.3, 4.5, 0.9, 7.0):
        state = next_state(state, free, table)
        seen.append(state.name)
    assert seen == [
        *("HIGH", "SOFT", "SOFT", "SOFT", "HIGH", "HARD", "LOW", "LOW", "HARD", "HARD", "SOFT", "LOW", "HIGH")
    ]


@pytest.mark.parametrize(
    ("host_free", "used", "size"),
    [
        (0.10, 500, 950),  # 500 + 0.10 * 1000 = 600, but no more than 5 % at a time
        (0.10, 880, 980),  # 880 + 0.20 * 0.10 / 0.20 * 1000
        (0.04, 980, 970),  # critical: 980 - 0.01 * 1000
    ],
)
def test_guests_shrink_by_the_rules_of_mom(host_free: float, used: float, size: float) -> None:
    assert shrunk(1000, used, host_free, Rules()) == pytest.approx(size)


def test_guests_grow_by_the_rules_of_mom() -> None:
    assert grown(1000, 500, 2000, Rules()) == pytest.approx(1050)
    assert grown(1000, 900, 2000, Rules()) == pytest.approx(1100)
    assert grown(1000, 500, 1020, Rules()) == 1020


class Guest:
    """A VM of 1,000 pages, as a policy knows it, which does at once what it is asked for."""

    def __init__(self, free: int, balloon: int = 0) -> None:
        self.owner, self.size, self.most, self.running = 0, 1000, 800, True
        self.balloon = balloon
        self.statistics = Statistics(free, 1000 - balloon, 0)
        self.asked: list[int] = []
        self.resident = 0

    def ask(self, pages: int) -> None:
        self.asked.append(pages)


def host(free: int, merger: Any = None) -> Any:
    return SimpleNamespace(size=10_000, free=free, merger=merger)


def test_mom_goes_by_the_mean_of_its_looks_and_leaves_small_changes() -> None:
    mom, guest = Mom(Rules(samples=2)), Guest(free=300)
    mom.turn(host(3000), [guest])  # 30 % free: it has no balloon, and cannot grow
    mom.turn(host(1500), [guest])  # 22.5 % on the mean
    assert guest.asked == []
    mom.turn(host(1500), [guest])  # 15 %: 700 + 150 = 850, 5 % at most
    assert guest.asked == [50]
    full = Guest(free=149)
    mom = Mom(Rules(samples=1))
    mom.turn(host(1500), [full])  # 851 + 150 = 1001 is more than it has
    mom.turn(host(1490), [full])  # 851 + 149 = 1000: no change
    assert full.asked == []
    large = Guest(free=0, balloon=500)
    mom.turn(host(9000), [large])  # 500 in use, 600 with a fifth more: more than 5 % at once
    assert large.asked == [400]


def test_mom_steers_ksmd() -> None:
    merger = SimpleNamespace(scan_pages=1100, sleep_millisecs=20, merges=True)
    mom = Mom(Rules())
    vms = [Guest(free=0) for _ in range(9)]
    mom.turn(host(1000, merger), vms)  # a tenth is free
    assert (merger.scan_pages, merger.merges, merger.sleep_millisecs) == (1250, True, 10 * (16 << 30) // (10_000 << 12))
    mom.turn(host(9000, merger), vms)  # 9,000 promised and 2,000 in reserve
    assert (merger.scan_pages, merger.merges) == (1200, True)
    mom.turn(host(9000, merger), vms[:8])
    assert not merger.merges


def test_prorata_gives_all_the_same_part_of_their_memory() -> None:
    """1,300 of 2,000 pages promised lie in the host, and 100 of its 10,000 are free, 500 are to be: 900 are there."""
    vms = [Guest(free=0), Guest(free=0)]
    for each, resident in zip(vms, (1000, 300), strict=True):
        each.resident = resident
    Prorata(5.0).turn(host(100), vms)
    assert [each.asked for each in vms] == [[550], [550]]
    Prorata(5.0).turn(host(5000), vms)
    assert [each.asked[-1] for each in vms] == [0, 0]


def two(mode: str, policy: dict[str, Any], *, steps: int = 10_000, **keys: Any) -> tuple[Any, Outcome]:
    """Run an idle VM, whose program has freed 300 of 350 pages, and one that writes to 350 pages again and again.

    Each has 512 pages, and the host 790, of which the pools and tables of the two have some.
    """
    balloon = {"max": "1600KiB", "message": 16, "retry": "100us", "statistics": "100us", "deflate_on_oom": True}
    vms = [vm(name, mode=mode, memory="2MiB", balloon=balloon) for name in ("idle", "busy")]
    fill = touches(range(350), WRITE)
    idle = Script([("map", 0, 350), *fill, ("unmap", 50, 300), *(("touch", 0, WRITE, 700) for _ in range(steps))])
    busy = Script([*fill, *(("touch", number % 350, WRITE, 700) for number in range(steps))])
    for key, value in policy.items():
        _, table, name = key.split(".")
        keys.setdefault(table, {})[name] = value
    pool = {"min": 2, "max": 8, "batch": 4}
    what = scenario(*vms, memory=790 * 4096, cores=3, what_if=True, cpu_override=QUICK, pool=pool, **keys)
    return run(what, [idle, busy], every=700_001, events=10**6)


ESX = {
    **{"host.overcommit.policy": "esx", "host.overcommit.every": "100us"},
    **{"host.esx.sample_period": "600us", "host.esx.sample_pages": 50, "host.esx.high": 15.0, "host.esx.soft": 12.0},
}


@pytest.mark.parametrize("mode", MODES)
def test_an_idle_vm_gives_its_memory_to_a_busy_one_under_esx(mode: str) -> None:
    """The busy one uses 350 of 512 pages, the idle one a few: what is to come free is the idle one's."""
    simulation, outcome = two(mode, ESX)
    assert outcome.ending is None
    idle, busy = (figures(outcome, "overcommit", number) for number in (0, 1))
    assert idle["periods"] > 3
    assert idle["active"] < 0.35 * 512
    assert (
        0.5 * 512 < busy["active"] < 0.85 * 512
    )  # 0.68, give or take three standard deviations of 50 pages, and more that is smoothed
    targets = [vm.memory["balloon_target"] for vm in outcome.vms]
    assert targets[0] > targets[1]
    assert not any(sum(simulation.host.count(owner).values()) for owner in (0, 1))


@pytest.mark.parametrize("mode", MODES)
def test_a_page_that_is_watched_is_mapped_again_by_the_next_access_alone(mode: str) -> None:
    """Nothing is short: what differs is sampling, whose pages cost one fault each where they are in use."""
    keys = {"host.esx.high": 0.0, "host.esx.soft": 0.0, "host.esx.hard": 0.0, "host.esx.low": 0.0}
    _, often = two(mode, ESX | keys, steps=8000)
    _, seldom = two(mode, ESX | keys | {"host.esx.sample_period": "1s"}, steps=8000)
    assert figures(seldom, "overcommit", 1)["periods"] == 0
    periods = figures(often, "overcommit", 1)["periods"]
    assert periods >= 3
    more = [
        sum(count for reason, (count, _) in each.vms[1].exits.items() if reason != "KICK") for each in (often, seldom)
    ]
    assert 50 * 0.4 * (periods - 1) < more[0] - more[1] < 50 * (periods + 2)
    assert [vm.memory["balloon_target"] for vm in often.vms] == [0, 0]


@pytest.mark.parametrize("policy", ["mom", "prorata"])
@pytest.mark.parametrize("mode", ["ept", "shadow"])
def test_balloons_keep_a_host_from_running_short(mode: str, policy: str) -> None:
    keys = {"host.overcommit.policy": policy, "host.overcommit.every": "100us"}
    _, outcome = two(mode, keys | {"host.mom.pressure": 0.3} if policy == "mom" else keys)
    assert outcome.ending is None
    assert sum(figures(outcome, "overcommit", number)["asked"] for number in (0, 1)) > 0
    assert sum(figures(outcome, "balloon_driver", number)["inflated"] for number in (0, 1)) > 100


@pytest.mark.parametrize("mode", MODES)
def test_pages_are_taken_and_vms_wait_where_balloons_do_not_help(mode: str) -> None:
    """No VM has a balloon, and the thresholds are above all that there is: state low from the start."""
    vms = [vm(name, mode=mode, memory="2MiB") for name in ("a", "b")]
    script = [*touches(range(150), WRITE), *(("touch", number % 150, WRITE, 500) for number in range(300))]
    table = {"policy": "esx", "every": "100us"}
    esx = {"low": 40.0, "hard": 41.0, "soft": 42.0, "high": 43.0, "sample_period": "1ms"}
    what = scenario(*vms, memory=450 * 4096, cores=3, what_if=True, overcommit=table, esx=esx, swap={"device": "nvme"})
    simulation, outcome = run(what, [Script(script), Script(script)], every=900_001, events=10**6)
    assert outcome.ending is None
    taken = [figures(outcome, "overcommit", number) for number in (0, 1)]
    assert min(each["swapped"] for each in taken) > 0
    assert min(each["blocked"] for each in taken) > 0
    assert all(each.cycles["host_wait"] > 0 for each in outcome.vms)
    assert not any(sum(simulation.host.count(owner).values()) for owner in (0, 1))


@pytest.mark.parametrize(
    ("host_keys", "balloon", "told"),
    [
        ({"policy": "mom"}, {}, "no VM lets it set the size"),
        ({"policy": "mom"}, {"max": "1MiB"}, "balloon.statistics"),
        ({"policy": "batch"}, {"max": "1MiB"}, "chooses refills"),
        ({}, {"max": "1MiB"}, "has no effect with 'none'"),
        ({"every": "1s"}, {}, "without overcommit.policy"),
        ({"policy": "esx"}, {"max": "1MiB", "size": "1MiB"}, "leave one of the two out"),
        ({"policy": "esx", "every": "0s"}, {}, "no time between"),
    ],
)
def test_what_has_no_effect_is_refused(host_keys: dict[str, Any], balloon: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        scenario(vm(balloon=balloon), overcommit=host_keys)


def test_shares_are_allowed_where_esx_goes_by_them() -> None:
    scenario(vm(shares=5), overcommit={"policy": "esx"})
    with pytest.raises(ValueError, match="nothing goes by shares"):
        scenario(vm(shares=5, balloon={"max": "1MiB"}), overcommit={"policy": "prorata"})


def test_a_host_that_is_short_while_no_vm_runs_has_nobody_to_ask() -> None:
    assert allot([], -10, tax=75) == []
