"""Do the references of a VM fill the ways of the LLC that it has, and no others, in every mode?"""

from __future__ import annotations

import numpy as np
import pytest

from vmsim.base.errors import InputError
from vmsim.engine.simulation import Simulation
from vmsim.scenario import Scenario

MODES = ["native", "ept", "npt", "shadow", "agile", "vkernel", "paired"]
UNIFORM = {"kind": "uniform", "footprint": "1MiB", "accesses": 3000}
SMALL = {"cache": {"l1": {"size": "8KiB"}, "l2": {"size": "16KiB", "ways": 4}, "llc": {"size": "55KiB", "slices": 10}}}


def simulated(*vms, cpu="skylake-x", **host):
    tables = [{"memory": "4MiB", "workload": UNIFORM, "name": f"v{number}", **vm} for number, vm in enumerate(vms)]
    host = {"cpu": cpu, "memory": "64MiB", "what_if": True, "data_caches": True, "cores": len(vms), **host}
    simulation = Simulation(Scenario.from_tables({"host": host, "vm": tables}))
    simulation.run()
    return simulation


def filled(simulation):
    """Return which ways of the LLC hold anything."""
    return {int(way) for way in np.flatnonzero((simulation.hardware.llc["tag"] >= 0).any(axis=0))}


@pytest.mark.parametrize("mode", MODES)
def test_a_vm_fills_its_ways_alone(mode):
    assert filled(simulated({"mode": mode, "llc_ways": "3-5"}, cpu_override=SMALL)) == {3, 4, 5}


def test_two_vms_have_theirs_and_one_without_a_list_has_all():
    ours = {"mode": "ept", "llc_ways": "0-1"}
    both = simulated(ours, {**ours, "llc_ways": "4"}, cpu_override=SMALL)
    assert filled(both) == {0, 1, 4}
    assert filled(simulated(ours, {"mode": "ept"}, cpu_override=SMALL)) == set(range(11))


def test_a_share_of_all_ways_is_exact_lru():
    """With tags that move and with tags that stay."""
    one, other = (simulated({"mode": "ept", **keys}, cpu_override=SMALL) for keys in ({}, {"llc_ways": "0-10"}))
    assert one.env.cycle == other.env.cycle
    lines = [np.sort(each.hardware.llc["tag"], axis=1).tolist() for each in (one, other)]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("cpu", "ways", "said"),
    [
        ("skylake-x", "0-11", "ways 0 to 10"),
        ("skylake-x", "0,2", "no gaps"),
        ("skylake-x", "3-1", "not a list of ways"),
        ("skylake-x", "most", "not a list of ways"),
    ],
)
def test_a_list_that_cannot_be_is_refused(cpu, ways, said):
    with pytest.raises(InputError, match=said):
        simulated({"llc_ways": ways}, cpu=cpu)


def test_a_list_with_gaps_is_one_of_amds():
    small = {"cache": {"l1": {"size": "8KiB"}, "l2": {"size": "16KiB", "ways": 4}, "llc": {"size": "64KiB"}}}
    assert filled(simulated({"llc_ways": "0,15"}, cpu="zen4", cpu_override=small)) == {0, 15}
