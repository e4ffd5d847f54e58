"""Are the figures of fairness those of their papers, and is a VM alone what it is together with the others?"""

from __future__ import annotations

from typing import Any

import pytest

import vmsim
from vmsim.alone import only
from vmsim.analysis.fairness import jain, least_over_most, progress
from vmsim.scenario import Scenario


def test_jains_index_by_hand() -> None:
    """Ten of 20 users have 1 each, the others nothing: 0.5 (TR-301, §3); 1, 2, 3: 36 / (3 * 14)."""
    assert jain([1] * 10 + [0] * 10) == 0.5
    assert jain([1, 2, 3]) == pytest.approx(36 / 42)
    assert jain([]) == jain([0, 0]) == 1.0
    assert least_over_most([2, 8, 4]) == 0.25
    assert progress([2.0, 4.0, 0.0]) == [0.5, 0.25]


def tables(count: int = 1) -> dict[str, Any]:
    work = {"kind": "uniform", "footprint": "512KiB", "accesses": 3000, "writes": 0.5}
    vm = {"memory": "8MiB", "mode": "ept", "workload": work}
    return {"host": {"cores": 3, "memory": "64MiB"}, "vm": [vm | {"name": "a", "count": count}, vm | {"name": "b"}]}


def test_a_vm_that_shares_nothing_is_no_slower() -> None:
    """Three VMs have a core each, and memory enough; each runs the same accesses alone, whatever its number."""
    table = vmsim.slowdown(tables(2))
    assert table["vm"].tolist() == ["a-0", "a-1", "b"]
    assert table["slowdown"].tolist() == pytest.approx([1, 1, 1], abs=0.03)
    assert table.attrs["fairness"]["jain"] == pytest.approx(1, abs=1e-3)


def test_only_leaves_the_others_out() -> None:
    scenario = Scenario.model_validate(tables(3))
    alone = only(scenario, 2)
    assert [vm.group for vm in alone.vms] == ["a"]
    assert alone.host == scenario.host
