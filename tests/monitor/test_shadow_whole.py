"""Does a whole VM under each kind of shadow run, and give back all that it had?"""

from __future__ import annotations

from itertools import product

import pytest

from tests.simulation.small import READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.frames.records import State

WHOLE = [
    pytest.param(*case, marks=[pytest.mark.slow] if case[1:] == ("eager", "lazy", ("2M", "4K")) else [])
    for case in product(
        ["kvm", "kvm-2007", "plex86"],
        ["lazy", "eager"],
        ["lazy", "eager"],
        [("4K", "4K"), ("2M", "4K"), ("2M", "2M")],
    )
]


@pytest.mark.parametrize(("preset", "fill", "populate", "pages"), WHOLE)
def test_a_whole_vm_runs_and_gives_everything_back(
    preset: str, fill: str, populate: str, pages: tuple[str, str]
) -> None:
    """Invariants are checked at every boundary; two VMs share the core and the pool's host."""
    keys = {"guest_page": pages[0], "host_page": pages[1], "memory": "16MiB", "populate": populate}
    shadow = {"preset": preset, "fill": fill}
    both = scenario(
        *(vm(name, mode="shadow", shadow=shadow, **keys) for name in ("a", "b")), memory="64MiB", quantum="20us"
    )
    steps = [
        *touches(range(40), WRITE),
        ("unmap", 3, 5),
        *touches(range(40)),
        ("touch", 600, WRITE),
        ("touch", 1, READ),
    ]
    simulation, outcome = run(both, [Script(steps), Script(steps[::-1])], every=160_001)
    assert outcome.ending is None
    assert time_adds_up(outcome)
    for each in outcome.vms:
        assert each.finished
        assert each.counters["accesses"] == 82
        assert each.counters["nested_walks"] == 0
        assert sum(cycles for _, cycles in each.exits.values()) == each.cycles["exit"]
    assert simulation.host.free == simulation.host.size
    assert (simulation.host.frames["state"] == State.FREE).all()


def test_what_is_owed_before_the_clock_starts_is_forgiven() -> None:
    _, outcome = run(scenario(vm(mode="shadow", populate="eager")), [Script(touches(range(4)))])
    assert {reason: count for reason, (count, _) in outcome.vms[0].exits.items()} == {"SHADOW_FILL": 4}
