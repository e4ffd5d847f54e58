"""Does a dirty log under agile paging miss no frame that is written to, on either side of a switch?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.monitor import test_agile_contract as contract
from tests.monitor.agile_world import ENDS, AgileWorld
from tests.monitor.test_shadow_log import LOG, begin
from tests.oracle.bits import RW, US, A, D, P
from tests.simulation.small import WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.base.errors import InputError
from vmsim.contracts import Leaf
from vmsim.monitor.features.protect_log import ProtectLog
from vmsim.record.tables import rows

MIDDLE, TABLE = (gfn << 12 for gfn in (10, 11))
ALL = P | RW | US | A | D


def read(world: AgileWorld, log: ProtectLog) -> set[int]:
    """Read the log; return the frames that it finds. What CR3 leads to past a switch is in the next at once."""
    found = set(np.flatnonzero(log.dirty).tolist())
    log.read([world.vcpu], world.vcpu.now)  # type: ignore[list-item]
    assert set(np.flatnonzero(log.dirty).tolist()) <= set(world.nested)
    world.bare.written = set()  # type: ignore[attr-defined]
    return found


def small(leaf: Leaf) -> range:
    return range(leaf.gfn, leaf.gfn + (1 << leaf.order))


@pytest.mark.parametrize("case", contract.CASES, ids=lambda case: "-".join(map(str, case.values())))
@given(program=st.lists(st.one_of(contract.steps, st.just(("read",))), min_size=4, max_size=20))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_log_misses_nothing(case: dict[str, Any], program: list[Any]) -> None:
    """It has besides what was written to only tables that walks switch to: nothing tells of flags that are set there.

    Nothing that the hardware can reach may be written to before it is in the log, on either side.
    """
    world = contract.start(case, log=LOG)
    log = begin(world)
    seen: set[int] = set()  # nested tables since the last reading
    for step in program:
        seen |= set(world.nested)
        if step[0] == "read":
            written = world.bare.written  # type: ignore[attr-defined]
            found = read(world, log)
            assert written <= found <= written | seen
            seen = set()
        else:
            contract.play_step(world, step)
        seen |= set(world.nested)
        written = world.bare.written  # type: ignore[attr-defined]
        logged = set(np.flatnonzero(log.dirty).tolist())
        assert written <= logged <= written | seen
        for leaf in world.shadow.host_pages.leaves():
            assert not leaf.writable or set(small(leaf)) <= logged
        for gva, level, _, rights in world.leaves():
            found_at = world.bare.walk(world.root, gva, False, mark=False)
            if rights & RW and not isinstance(found_at, int):
                assert level == 1
                assert found_at[0] >> 12 in logged
    world.conserved()


def nested_world() -> AgileWorld:
    """Return four levels of tables, the lowest of which is nested and maps four pages, dirty and used."""
    world = contract.start(contract.CASES[2] | {"host_order": 0, "chunk": 1}, log=LOG)
    bottom = contract.table(world, 9, 0)
    world.access(0)
    world.store(*((bottom + 8 * n, (600 + n) << 12 | ALL) for n in range(4)))
    assert world.nested == {bottom >> 12: 1}
    world.invalidate(0, ENDS)
    for number in range(4):
        world.access(number << 12, write=True)
    return world


def test_a_page_past_a_switch_exits_once_between_two_readings() -> None:
    """Its nested entry is protected, and the switch is filled again: three violations for three pages, one fill."""
    world = nested_world()
    log = begin(world)
    for _ in range(3):
        world.shadow.exits.clear()
        for number in range(4):
            world.access(number << 12)
        for number in (1, 2, 3, 2, 1):
            world.access(number << 12, write=True)
        assert world.exits == {"WRITE_PROTECT": 3, "SHADOW_FILL": 1}
        bottom = contract.table(world, 9, 0) >> 12
        assert read(world, log) == {bottom, 601, 602, 603}
        assert world.nested == {bottom: 1}  # a reading moves no table


def test_large_nested_pages_are_split_while_they_are_logged() -> None:
    world = contract.start(contract.CASES[2] | {"chunk": 1}, log=LOG)
    log = begin(world)
    above = contract.table(world, 2, 0)
    world.access(0)
    world.store(*((above + 8 * (1 + n), 1024 << 12 | 1 << 7 | ALL) for n in range(3)))
    assert above >> 12 in world.nested
    world.invalidate(0, ENDS)
    read(world, log)
    for number in (3, 7):
        world.access((1 << 21) + (number << 12), write=True)
    assert read(world, log) == {above >> 12, 1024 + 3, 1024 + 7}
    assert log.pieces()[0] >= 1
    log.end()
    assert log.pieces()[1] >= 1
    assert all(leaf.writable for leaf in world.shadow.host_pages.leaves())
    world.audit()
    world.conserved()


@pytest.mark.parametrize("guest", [3, 4, 5])
@pytest.mark.parametrize("keys", [{"vcpus": 1}, {"vcpus": 2}, {"host_page": "2M", "vcpus": 1}])
def test_a_whole_vm_is_logged(keys: dict[str, Any], guest: int) -> None:
    """Invariants are checked at every boundary; each reading finds something."""
    base = 800 << 20
    log = {"method": "write-protect", "every": "60us"}
    agile = {"threshold": 2, "interval": "150us"}
    each = {"guest_levels": guest, "agile": agile, "workload": {"base": base}} | keys
    what = scenario(vm(mode="agile", memory="16MiB", dirty_log=log, **each), memory="64MiB")
    steps = [*touches(range(40), WRITE), ("unmap", 3, 5), *[("touch", n % 7, WRITE) for n in range(60)]]
    simulation, outcome = run(what, [Script(steps, base=base)], every=40_000)
    assert outcome.ending is None
    assert outcome.vms[0].finished
    assert keys["vcpus"] > 1 or time_adds_up(outcome)
    readings = [each["pages"] for each in rows("dirty", outcome)]
    assert len(readings) > 2
    assert sum(readings) == outcome.vms[0].figures.named("dirty_log")["pages"]
    assert simulation.host.free == simulation.host.size


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ({"method": "pml"}, "a walk that ends in the shadow sets none there"),
        ({"method": "ad-scan"}, "dirty flags in a shadow are the guest's"),
    ],
)
def test_methods_that_a_shadow_cannot_have_are_refused(log: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, InputError), match=words):
        scenario(vm(mode="agile", dirty_log=log))


def test_guests_of_two_levels_are_refused_with_the_manual_s_reason() -> None:
    with pytest.raises((ValueError, InputError), match=r"entries of one format.*CR4\.PAE.*expected 3, 4 or 5"):
        scenario(vm(mode="agile", guest_levels=2))
