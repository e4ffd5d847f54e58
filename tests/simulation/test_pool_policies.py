"""Do pools with each policy for refills and spare pages work in every mode, and do what the policies say?"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.simulation.small import PAGE, WRITE, Script, run, scenario, time_adds_up, touches, vm
from tests.simulation.test_supply import GUESTS
from vmsim.base.errors import InputError
from vmsim.record.messages import Kind
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario

REFILLS = ("proportional", "predictive")
SPARES = ("fair", "neediest", "shares")
SIZES = {"min": 4, "max": 64}
MARKS = {"min": "16KiB", "low": "60KiB", "high": "80KiB"}


def granted(outcome: Outcome, vm: int = 0) -> list[int]:
    """Return the pages of each refill of a VM's pool."""
    return [each.pages for each in outcome.messages if (each.kind, each.vm) == (Kind.GRANT, vm)]


@pytest.mark.parametrize("name", GUESTS)
@pytest.mark.parametrize("refill", REFILLS)
def test_every_mode_is_refilled_so(name: str, refill: str) -> None:
    steps = [*touches(range(40), WRITE), ("unmap", 3, 20), *touches(range(60), WRITE)]
    pair = [vm(each, **GUESTS[name]) for each in "ab"]
    what = scenario(*pair, pool=SIZES | {"refill": refill}, cores=2, memory="32MiB")
    _, outcome = run(what, [Script(steps)] * 2, every=200_000)
    assert outcome.ending is None
    assert time_adds_up(outcome)
    assert [each.guest_faults for each in outcome.vms] == [80, 80]


@pytest.mark.parametrize("name", GUESTS)
@pytest.mark.parametrize("spares", SPARES)
def test_in_every_mode_a_neighbour_gets_what_others_have_to_spare(name: str, spares: str) -> None:
    """a and c have large pools and touch little; b touches more than there is besides."""
    small = {"memory": "1MiB", **GUESTS[name]}
    three = [vm("a", **small), vm("c", **small), vm("b", start="10ms", **small)]
    idle: list[Any] = [*touches(range(3), WRITE), ("compute", 30_000_000)]
    what = scenario(
        *three, pool={"min": 4, "max": 100, "batch": 90}, spares=spares, cores=3, memory=400 * PAGE, watermarks=MARKS
    )
    _, outcome = run(what, [Script(idle), Script(idle), Script(touches(range(200), WRITE))], every=1_000_000)
    assert outcome.ending is None
    assert time_adds_up(outcome)
    assert {each.vm for each in outcome.transfers if each.what == "spare"} & {"a", "c"}
    assert outcome.vms[2].guest_faults >= 200


def test_a_proportional_refill_brings_half_of_what_lacks() -> None:
    """By hand: of 64 at first, and of the one that is waited for; later calls come with 3 pages left."""
    what = scenario(vm(), pool=SIZES | {"refill": "proportional"}, memory="32MiB")
    _, outcome = run(what, [Script(touches(range(100), WRITE))])
    first, *rest = granted(outcome)
    assert first == (64 + 1 + 1) // 2
    assert rest
    assert set(rest) <= {
        (64 - left + 1) // 2 for left in range(4)
    }  # of the three, some go while the call is on its way


def test_a_predictive_pool_is_called_before_it_is_empty_and_nobody_waits_any_more() -> None:
    """A page every 100,000 cycles, of which a refill takes less: the host knows it after the first refills."""
    slow = [step for page in range(200) for step in (("touch", page, WRITE), ("compute", 100_000))]
    waits = {}
    for refill in ("batch", "predictive"):
        keys = {"min": 0, "max": 64, "batch": 8, "refill": refill}
        _, outcome = run(scenario(vm(), pool=keys, memory="32MiB"), [Script(slow)])
        waits[refill] = outcome.vms[0].waits["pool_wait"]
    assert waits["batch"] > 20  # once for each eight of more than 200 pages
    assert waits["predictive"] <= 3


def test_a_predictive_pool_of_a_fast_vm_gets_all_there_is_room_for() -> None:
    """Pages taken faster than they are cleared, 1733 cycles each: by chunks of 16 in an exit."""
    keys = {"min": 4, "max": 64, "batch": 8, "refill": "predictive"}
    _, outcome = run(scenario(vm(fill_chunk=16), pool=keys, memory="32MiB"), [Script(touches(range(400), WRITE))])
    assert max(granted(outcome)) > 40


@pytest.mark.parametrize("spares", ["largest", "fair", "shares"])
def test_a_pool_gives_what_its_policy_says(spares: str) -> None:
    """a has 3 times the shares of c; both hold 90 pages as b begins, and the host lacks what b takes."""
    tables = [vm("a", memory="1MiB"), vm("c", memory="1MiB"), vm("b", memory="1MiB", start="10ms")]
    if spares == "shares":
        tables[0]["shares"], tables[1]["shares"] = 3000, 1000
    idle: list[Any] = [*touches(range(3), WRITE), ("compute", 200_000_000)]
    pool = {"min": 4, "max": 100, "batch": 90}
    what = scenario(*tables, pool=pool, spares=spares, cores=3, memory=300 * PAGE, watermarks=MARKS)
    _, outcome = run(what, [Script(idle), Script(idle), Script(touches(range(150), WRITE))])
    given = [(each.vm, each.pages, each.level) for each in outcome.transfers if each.what == "spare"]
    levels = {"a": 90, "c": 90} | {name: level for name, _, level in given if name != "b"}
    if spares == "largest":
        assert given[0][1] > 70  # all but its minimum, of one alone
        assert given[0][2] == 4
    elif spares == "fair":
        assert abs(levels["a"] - levels["c"]) <= 1
    else:
        assert levels["a"] > 2 * levels["c"]


def test_levels_that_pools_give_down_to_only_sink() -> None:
    tables = [vm("a", memory="1MiB"), vm("b", memory="1MiB", start="10ms")]
    pool = {"min": 4, "max": 100, "batch": 90}
    what = scenario(*tables, pool=pool, spares="fair", cores=2, memory=200 * PAGE, watermarks=MARKS)
    idle: list[Any] = [*touches(range(3), WRITE), ("compute", 200_000_000)]
    _, outcome = run(what, [Script(idle), Script(touches(range(150), WRITE))])
    levels = [each.level for each in outcome.transfers if (each.what, each.vm) == ("spare", "a")]
    assert levels
    assert all(after <= before for before, after in pairwise(levels))


@pytest.mark.parametrize(
    ("host", "own", "said"),
    [
        ({"pool": {"refill": "predicitve"}}, {}, "Did you mean 'predictive'"),
        ({"pool": {"refill": "clock"}}, {}, "'clock' chooses victims; expected one that chooses refills"),
        ({"spares": "batch"}, {}, "'batch' chooses refills; expected one that chooses spares"),
        ({"pool": {"refill": "proportional", "batch": 3}}, {}, "no effect with pool.refill"),
        ({}, {"pool": {"refill": "proportional", "batch": 3}}, "no effect with pool.refill"),
        ({}, {"shares": 3}, "nothing goes by shares"),
        ({"predictive": {"percent": 300}}, {}, "nothing uses policy 'predictive'"),
        ({"pool": {"supply": "fault", "refill": "predictive"}}, {}, "no effect with pool.supply"),
    ],
)
def test_what_would_do_nothing_or_is_none_is_refused(host: dict[str, Any], own: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Scenario.from_tables({"host": {"memory": "32MiB", **host}, "vm": [vm(**own)]})
