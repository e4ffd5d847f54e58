"""Are the operations of a program that wait for nobody carried out in compiled code, and as the kernel does?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.simulation.small import READ, WRITE, Script, run, scenario, touches, vm
from vmsim.frames.buddy import allocate_many, make_zone
from vmsim.frames.records import State
from vmsim.frames.stack import Stack
from vmsim.guest.demand import give_back
from vmsim.guest.kernel import GuestKernel

MODES = ["native", "ept", "npt", "shadow", "agile", "vkernel"]
STEPS = [
    *touches(range(8), WRITE),
    ("unmap", 2, 4),  # 2, 3, 4, 5
    ("map", 3, 1),
    ("touch", 3, WRITE),
    ("protect", 6, 1, 1),
    ("discard", 7, 1),
    ("touch", 7, READ),
    ("touch", 6, READ),
]


def _calls_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which operations the kernel's process is asked for."""
    asked = list[str]()

    def noted(name: str) -> Any:
        original = getattr(GuestKernel, name)

        def call(*arguments: Any) -> Any:
            asked.append(name)
            return original(*arguments)

        return call

    for name in ("map", "unmap", "protect", "discard"):
        monkeypatch.setattr(GuestKernel, name, noted(name))
    return asked


@pytest.mark.parametrize("mode", MODES)
def test_few_pages_are_unmapped_and_protected_without_the_kernels_process(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten faults by hand: eight pages, page 3 once more, and page 7, whose frame madvise has freed."""
    asked = _calls_of(monkeypatch)
    keys = {"cpu": "zen2"} if mode == "npt" else {}
    _, outcome = run(scenario(vm(mode=mode), **keys), [Script(STEPS)])
    assert outcome.ending is None
    assert asked == []
    assert outcome.vms[0].guest_faults == 10


def test_long_ranges_are_the_kernels_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _calls_of(monkeypatch)
    _, outcome = run(scenario(vm()), [Script([*touches(range(8)), ("unmap", 0, 1 << 12), ("touch", 1, READ)])])
    assert asked == ["unmap"]
    assert outcome.vms[0].guest_faults == 9


def test_the_oldest_of_too_many_frames_that_stand_ready_go_to_the_allocator() -> None:
    """380 stand ready and 10 come: 390 are 6 above the high mark of 384, so 6 and a batch of 64 go; 320 stay."""
    zone, frames = make_zone(1024)
    taken = np.empty(390, np.int64)
    assert allocate_many(zone, frames, 0, int(State.GUEST), 0, taken) == 390
    ready = Stack()
    ready.put(taken[:380])
    give_back(zone, frames, ready.words, taken[380:])
    assert ready.held().tolist() == taken[70:].tolist()
    assert int(zone["free"][0]) == 1024 - 390 + 70
    assert {int(state) for state in frames["state"][taken[:70]]} == {State.FREE}
