"""Does what leaves an inclusive LLC leave the caches of all cores around it, and of no others?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.machine.geometries import PREFIX
from tests.machine.worlds import memory
from vmsim.machine import layout, vcpu
from vmsim.machine.layout import Unit

INCLUSIVE = replace(
    PREFIX, l1=Unit(2, 4), l2=Unit(2, 8), llc=Unit(4, 2), llc_inclusive=True, l1_tlb=[Unit(1, 2)], data_caches=True
)
SETS, WAYS = INCLUSIVE.llc.sets, INCLUSIVE.llc.ways


class Machine:
    """Cores around LLCs, and a native VM whose pages are large: its accesses bring few lines of tables."""

    def __init__(self, geometry: layout.Geometry, sockets: list[int]) -> None:
        self.cores = layout.make_cores(geometry, len(sockets))
        layout.set_sockets(self.cores, sockets)
        self.sockets = sockets
        self.llcs = [layout.make_llc(geometry, len(sockets)) for _ in set(sockets)]
        self.registers = layout.make_vm(4)
        self.registers["cr3"], self.registers["levels"] = 1 << 12, 4

    def touch(self, core: int, lines: list[int]) -> None:
        """Look for lines of memory on a core, one after the other."""
        count = np.ones(len(lines), np.int32)
        gva = np.array([64 * line for line in lines], np.int64)
        words = memory()
        words[(1 << 12) >> 3] = 2 << 12 | 7  # a page of 1 GiB at 0
        words[(2 << 12) >> 3] = 1 << 7 | 0x67
        llc = self.llcs[self.sockets[core]]
        vcpu.run(
            self.cores, core, llc, self.registers, words, gva, count, count.astype(np.uint8) * 0, 0, len(lines), 1 << 60
        )
        words[[(1 << 12) >> 3, (2 << 12) >> 3]] = 0

    def private(self, core: int) -> set[int]:
        return _lines(self.cores[core]["l1"]) | _lines(self.cores[core]["l2"])


def _lines(sets: Any) -> set[int]:
    return {int(tag) for tag in sets["tag"].ravel() if tag != -1}


def test_a_line_that_leaves_the_llc_leaves_every_core_around_it() -> None:
    machine = Machine(INCLUSIVE, [0, 0, 0])
    machine.touch(0, [3])
    machine.touch(2, [3])
    assert 3 in machine.private(0) & machine.private(2)
    machine.touch(1, [3 + SETS * (1 + way) for way in range(WAYS)])  # all ways of its set
    assert not {3} & (machine.private(0) | machine.private(1) | machine.private(2))


def test_it_stays_where_nothing_is_included() -> None:
    machine = Machine(replace(INCLUSIVE, llc_inclusive=False), [0, 0])
    machine.touch(0, [3])
    machine.touch(1, [3 + SETS * (1 + way) for way in range(WAYS)])
    assert 3 in machine.private(0)


def test_it_stays_on_another_socket_which_has_an_llc_of_its_own() -> None:
    machine = Machine(INCLUSIVE, [0, 0, 1, 1])
    for core in range(4):
        machine.touch(core, [3])
    machine.touch(3, [3 + SETS * (1 + way) for way in range(WAYS)])
    assert [3 in machine.private(core) for core in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("pairs", [False, True])
def test_caches_have_nothing_that_the_llc_has_not(pairs: bool) -> None:
    machine = Machine(replace(INCLUSIVE, l2_pairs=pairs), [0, 0])
    random = np.random.default_rng(5)
    for _ in range(60):
        machine.touch(int(random.integers(2)), random.integers(0, 64, 9).tolist())
        assert machine.private(0) | machine.private(1) <= _lines(machine.llcs[0])
    assert len(machine.private(0)) > 1
