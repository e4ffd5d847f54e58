"""Do tables move to where most of what they lead to lies, in every mode, and is it paid for?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.simulation.small import BASE, PAGE, Script
from tests.simulation.test_numa import MODES, WORKLOAD, host, references, vm
from tests.simulation.test_tiers import QUICK
from vmsim.base.errors import InputError
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario
from vmsim.workloads import Chunk

NORMAL = {"mode": "normal", **QUICK}
OLD = 0x1000_0000  # where a 32-bit program's addresses start
VARIANTS = [
    *({"mode": mode} for mode in MODES),
    *({"mode": mode, "guest_levels": levels} for mode in ("native", "shadow", "vkernel") for levels in (2, 3)),
    *({"mode": "paired", "paired": {"layout": layout}} for layout in ("contiguous", "pointer", "separate", "shared")),
    *({"mode": "paired", "paired": {"layout": each, "guest": False}} for each in ("contiguous", "pointer", "separate")),
]


@dataclass
class Uneven(Script):
    """The same steps by two threads, in pages of their own; the first has far more of them."""

    threads: int = 2

    def footprint(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([self.base]), np.array([64 * PAGE])

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        mine = [step for step in self.steps if step[0] != "touch" or (step[1] < 48) == (thread == 0)]
        return Script(mine, base=self.base).chunks()


def world(
    tables: str | None = "migrate", *, vcpus: int = 1, keys: dict[str, Any] | None = None, **of_host: Any
) -> Scenario:
    """Return a VM whose memory lies on the second socket at first; its only vCPU, or one of two, is on the first."""
    numa = {"node": "all" if vcpus > 1 else 0, "memory": 1} | ({"tables": tables} if tables else {})
    keys = keys or {"mode": "ept"}
    base = {"workload": WORKLOAD | {"base": OLD}} if keys.get("guest_levels", 4) < 4 else {}
    return host(vm(vcpus=vcpus, numa=numa, **keys, **base), numa_balancing=NORMAL, **of_host)


def run(scenario: Scenario, rounds: int = 24) -> tuple[Outcome, Simulation, int]:
    """Return the outcome, the simulation, and how many frames were free before it."""
    width = scenario.vms[0].guest_levels
    steps = [step for page in range(64) for step in (("touch", page, 0), ("compute", 4_000))]
    stream = Uneven(steps * rounds, base=OLD if width < 4 else BASE, threads=scenario.vms[0].vcpus)
    simulation = Simulation(scenario, streams=[stream], observers=[check_invariants])
    free = simulation.host.free
    return simulation.run(), simulation, free


def moves(outcome: Outcome) -> dict[str, int]:
    return dict(outcome.vms[0].figures.named("table_moves"))


@pytest.mark.parametrize("keys", VARIANTS, ids=lambda keys: "-".join(str(each) for each in keys.values()))
def test_tables_follow_the_pages_of_several_vcpus(keys):
    (stay, *_), (follow, simulation, free) = (run(world(tables, vcpus=2, keys=keys)) for tables in (None, "migrate"))
    assert stay.ending is None is follow.ending
    counts = moves(follow)
    assert counts["moved"] > 0 == counts["failed"]
    far, near = stay.vms[0].memory, follow.vms[0].memory
    each = 2 if keys["mode"] == "paired" and keys.get("paired", {}).get("layout", "contiguous") == "contiguous" else 1
    more, rest = divmod(near["table_node_0"] - far["table_node_0"], each)
    assert rest == 0
    if keys["mode"] != "shadow":  # whose tables come and go
        assert 0 < more <= counts["moved"]
        assert near["table_node_0"] + near["table_node_1"] == far["table_node_0"] + far["table_node_1"]
    assert simulation.host.free == free


def test_walks_find_tables_near_that_have_moved():
    (stay, *_), (follow, *_) = (run(world(tables)) for tables in (None, "migrate"))
    assert references(stay)[1, 0] == 0 < references(follow)[1, 0]
    assert follow.vms[0].cycles["walk_nested"] != stay.vms[0].cycles["walk_nested"]


@pytest.mark.parametrize("mode", ["native", "ept"])
def test_what_moves_is_paid_for_by_who_scans(mode):
    """A look at each table, a page and the copying of it for each that moves, an entry, and a flush for each look."""
    what = world(keys={"mode": mode})
    outcome, costs = run(what)[0], what.cpu.cost
    counts = moves(outcome)
    least = counts["looked"] * costs.log_scan
    least += counts["moved"] * (costs.table_page + costs.copy_page + costs.entry_edit)
    assert least <= counts["cycles"] <= least + counts["moved"] * 20_000
    assert outcome.vms[0].figures.named("numa_balancing_host")["cycles"] >= counts["cycles"]


def test_of_tables_that_follow_pages_somebody_must_move_the_pages():
    with pytest.raises(InputError, match=r'numa.tables = "migrate"'):
        host(vm(numa={"tables": "migrate"}))
    with pytest.raises(InputError, match="leaves interleaved memory alone"):
        host(vm(numa={"tables": "migrate", "memory": "interleave"}), numa_balancing=NORMAL)
