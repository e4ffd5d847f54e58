"""Does a dirty log under a shadow find exactly the frames that are written to between two readings?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.monitor import test_shadow_contract as contract
from tests.monitor.test_shadow import DATA, RIGHTS, entry, world_of
from tests.monitor.world import World, all_pairs
from tests.oracle.bits import RW, A, D
from tests.oracle.shadow import BareGuest
from tests.simulation.small import PAGE, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.base.errors import InputError
from vmsim.monitor.features.protect_log import ProtectLog
from vmsim.monitor.shadow.mode import SHADOW_PRESETS, ShadowSpec
from vmsim.record.tables import rows
from vmsim.scenario.dirty_log import DirtyLogSpec

LOG = DirtyLogSpec("write-protect", every=1 << 40, stop=0, split="lazy")


@dataclass
class Noted(BareGuest):
    """The twin on bare hardware, with a note of every frame that is written to, by whom ever."""

    written: set[int] = field(default_factory=set)

    def store(self, gpa: int, value: int) -> None:
        super().store(gpa, value)
        if gpa >> 12 < self.frames:
            self.written.add(gpa >> 12)

    def clear(self, gfn: int) -> None:
        super().clear(gfn)
        self.written.add(gfn)

    def walk(self, root: int, gva: int, write: bool, *, mark: bool = True) -> tuple[int, int, int] | int:
        before = dict(self.words) if mark else {}
        found = super().walk(root, gva, write, mark=mark)
        if mark:
            self.written |= {gpa >> 12 for gpa, word in self.words.items() if before.get(gpa) != word}
            if write and not isinstance(found, int):
                self.written.add(found[0] >> 12)
        return found


def begin(world: World) -> ProtectLog:
    """Begin to log, on both machines."""
    world.drive(world.shadow.begin(world.vcpu))
    world.bare.__class__ = Noted
    world.bare.written = set()  # type: ignore[attr-defined]
    (log,) = world.shadow.features
    assert isinstance(log, ProtectLog)
    return log


def read(world: World, log: ProtectLog) -> set[int]:
    """Read the log; return the frames that it finds."""
    found = set(np.flatnonzero(log.dirty).tolist())
    before = log.rounds.noted
    log.read([world.vcpu], world.vcpu.now)  # type: ignore[list-item]
    assert log.rounds.noted == before + 1
    assert not log.dirty.any()
    world.bare.written = set()  # type: ignore[attr-defined]
    return found


CASES = [
    case
    for case in all_pairs({**contract.CHOICES, "ad": ["write-protect"]}, contract.allowed)
    if case["entries"] == 0 or case["levels"] != 5
]


@pytest.mark.parametrize("case", CASES, ids=contract.name_of)
@given(program=st.lists(st.one_of(contract.steps, st.just(("read",))), min_size=4, max_size=20))
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_log_is_what_was_written_to(case: dict[str, Any], program: list[Any]) -> None:
    """In every kind of shadow, and the guest still sees what it would see on bare hardware."""
    world = contract.start(case, log=LOG)
    log = begin(world)
    for step in program:
        if step[0] == "read":
            written = world.bare.written  # type: ignore[attr-defined]
            assert read(world, log) == written
        else:
            contract.play_step(world, step)
        written = world.bare.written  # type: ignore[attr-defined]
        assert set(np.flatnonzero(log.dirty).tolist()) == written
        for gva, level, _, rights in world.leaves():
            found = world.bare.walk(world.root, gva, False, mark=False)
            if rights & RW and not isinstance(found, int):
                assert level == 1
                assert found[0] >> 12 in written
    world.conserved()


@pytest.mark.parametrize("preset", ["kvm", "kvm-2007"])
def test_a_page_that_is_written_to_exits_once_between_two_readings(preset: str) -> None:
    """Three pages, dirty in the guest's tables: 3 exits after each reading, and none for reads and second writes."""
    world = world_of(SHADOW_PRESETS[preset], 8, log=LOG)
    for number in range(8):
        world.access(number * PAGE, write=True)
    log = begin(world)
    for _ in range(3):
        world.shadow.exits.clear()
        for number in range(8):
            world.access(number * PAGE)
        for number in (1, 4, 6, 4, 1):
            world.access(number * PAGE, write=True)
        assert world.exits == {"WRITE_PROTECT": 3}
        assert read(world, log) == {DATA + 1, DATA + 4, DATA + 6}
    assert [each.pages for each in log.rounds.since(0)] == [3, 3, 3]


def test_flags_that_the_monitor_sets_and_stores_that_it_makes_are_in_the_log() -> None:
    world = world_of(ShadowSpec(trap="emulate", write_flood=0), log=LOG)
    world.store((entry(0), DATA << 12 | RIGHTS))
    log = begin(world)
    world.access(0)
    assert read(world, log) == {8, 9, 10, 11}  # the first access to all: A at each level, but not the page
    world.access(0)
    assert read(world, log) == set()
    world.store((entry(5), DATA << 12 | RIGHTS | A | D))
    assert read(world, log) == {11}


@pytest.mark.parametrize("levels", [2, 4])
def test_large_pages_are_small_while_they_are_logged_and_large_again_when_it_ends(levels: int) -> None:
    world = contract.start({**CASES[0], "levels": levels, "host_order": 9, "chunk": 1, "limit": 1024}, log=LOG)
    gva = contract.large(levels)
    world.access(gva, write=True)
    assert [level for at, level, *_ in world.leaves() if at == gva] == [2]
    log = begin(world)
    for number in (3, 7):
        world.access(gva + number * PAGE, write=True)
    assert {level for at, level, *_ in world.leaves() if at >= gva} == {1}
    assert read(world, log) == {1024 + 3, 1024 + 7}
    log.end()
    assert log.collapses == 1
    world.access(gva, write=True)
    assert [level for at, level, *_ in world.leaves() if at >= gva] == [2]
    world.audit()
    world.conserved()


@pytest.mark.parametrize("guest", [2, 3, 4])
@pytest.mark.parametrize("shadow", [{}, {"preset": "kvm-2007", "fill": "eager"}, {"preset": "plex86"}])
def test_a_whole_vm_is_logged(shadow: dict[str, Any], guest: int) -> None:
    """Invariants are checked at every boundary; a page written to each time is found by each reading."""
    base = 800 << 20
    keys = {"guest_levels": guest, "shadow": shadow, "workload": {"base": base}}
    log = {"method": "write-protect", "every": "60us"}
    what = scenario(vm(mode="shadow", memory="16MiB", dirty_log=log, **keys), memory="64MiB")
    steps = [*touches(range(40), WRITE), ("unmap", 3, 5), *[("touch", n % 7, WRITE) for n in range(60)]]
    simulation, outcome = run(what, [Script(steps, base=base)], every=40_000)
    assert outcome.ending is None
    assert outcome.vms[0].finished
    assert time_adds_up(outcome)
    readings = [each["pages"] for each in rows("dirty", outcome)]
    assert len(readings) > 2
    assert sum(readings) == outcome.vms[0].figures.named("dirty_log")["pages"]
    assert outcome.vms[0].exits["DIRTY_LOG"][0] >= len(readings) - 1
    assert simulation.host.free == simulation.host.size


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ({"method": "pml"}, "notes pages whose dirty flag a walk of EPT sets"),
        ({"method": "ad-scan"}, "dirty flags in a shadow are the guest's"),
        ({"method": "write-protect", "split": "eager"}, "splits large pages eagerly in nested tables alone"),
    ],
)
def test_what_kvm_does_not_do_under_a_shadow_is_refused(log: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, InputError), match=words):
        scenario(vm(mode="shadow", dirty_log=log))
