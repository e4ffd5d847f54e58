"""Does a VM that is stopped end at its time, and give all its memory back to those who wait for it?"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.simulation.small import PAGE, READ, WRITE, Script, Threads, run, scenario, time_adds_up, touches, vm
from vmsim.base.errors import InputError

MODES: dict[str, dict[str, Any]] = {
    **{mode: {"mode": mode} for mode in ("native", "ept", "npt", "agile", "paired", "vkernel")},
    "kvm": {"mode": "shadow", "shadow": {"preset": "kvm"}},
    "plex86": {"mode": "shadow", "shadow": {"preset": "plex86"}},
}
STOP = 400_000  # cycles: 200 us on the yardstick
HORIZON = 40_000


def endless(threads: int = 1) -> Script:
    return Script([("touch", page % 64, WRITE) for page in range(60_000)], threads=threads)


@pytest.mark.parametrize("vcpus", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_a_stopped_vm_ends_at_its_time_and_leaves_nothing(mode: str, vcpus: int) -> None:
    keys = MODES[mode] | {"vcpus": vcpus, "stop": f"{STOP}cycles", "workload": {"compute": 100}}
    what = scenario(vm("stopped", **keys), vm("other", **MODES[mode]), cores=4, what_if=True)
    short = Script([("touch", page, WRITE) for page in range(16)])
    simulation, outcome = run(what, [endless(vcpus), short])
    stopped, other = outcome.vms
    assert outcome.ending is None
    assert (stopped.finished, other.finished) == (False, True)
    assert STOP <= stopped.finish <= STOP + 2 * HORIZON + 30_000  # what it owes, and the exit that is under way
    assert 0 < stopped.figures.named("processor")["accesses"] < 60_000
    assert simulation.host.free == simulation.host.size - sum(simulation.host.count(-1).values())


def test_who_waits_for_memory_has_that_of_the_vm_that_was_stopped() -> None:
    large = {"mode": "native", "memory": 600 * PAGE}
    both = vm("stopped", stop="2ms", **large), vm("waits", start="1ms", **large)
    what = scenario(*both, cores=2, memory=800 * PAGE)
    touches = [("touch", page, WRITE) for page in range(500)]
    stays = Script(touches + [("compute", 1_000_000)] * 20 + [("touch", 0, WRITE)])
    outcome = run(what, [stays, Script(touches)])[1]
    stopped, waits = outcome.vms
    assert outcome.ending is None
    assert (stopped.finished, waits.finished) == (False, True)
    assert waits.cycles["host_wait"] > 0
    assert waits.finish > stopped.finish


def test_a_vm_stopped_before_it_starts_or_is_measured_is_refused() -> None:
    with pytest.raises(ValidationError, match="is not after the start"):
        scenario(vm(start="2ms", stop="1ms"))
    with pytest.raises(InputError, match="before its warm-up"):
        run(scenario(vm(stop="20us", workload={"compute": 100}), warmup="90%"), [endless()])


def test_what_compiled_code_had_done_when_a_vm_is_stopped_is_counted() -> None:
    """Stopped while it computes, behind faults that nobody has counted yet: its cycles by cause are its time."""
    old = 0x1000_0000  # where a 32-bit program's addresses start
    pages = [("touch", page, READ, 1620) for page in (50, 29, 43, 36)]
    steps = [*touches([0, 0, 1]), ("map", 56, 31), ("unmap", 1, 2), ("compute", 0), *pages, ("compute", 55_417)]
    table = vm(
        mode="vkernel",
        guest_levels=3,
        memory=56 * PAGE,
        start="1808 cycles",
        stop="51808 cycles",
        workload={"base": old},
    )
    marks = {"min": 52 * PAGE, "low": 57 * PAGE, "high": 72 * PAGE}
    pool = {"min": 8, "max": 28, "batch": 15}
    host = {"memory": 150 * PAGE, "cores": 2, "quantum": "1ms", "pool": pool, "watermarks": marks, "what_if": True}
    _, outcome = run(scenario(table, **host), [Threads([Script([*steps, *touches([0])], base=old)])])
    assert not outcome.vms[0].finished
    assert time_adds_up(outcome)
