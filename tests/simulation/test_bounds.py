"""Does the memory of a run grow with the time that it simulates?"""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from tests.simulation.small import PAGE, scenario, vm
from vmsim.base.errors import InputError
from vmsim.engine.simulation import Simulation
from vmsim.record import log
from vmsim.record.tables import rows

LIMIT = 64
SHARE = 10  # numbers that happen to be small are cached, and take some KB more or less: not a tenth of what logs would


def long_run(rounds: int) -> Simulation:
    """Return VMs that take pages and give them back, wait for the disk and have logs read, in rounds; run."""
    churn = {"kind": "churn", "footprint": 32 * PAGE, "rounds": rounds, "burst": 4 * PAGE, "work": 40, "writes": 0.5}
    disk = {"kind": "disk", "footprint": 16 * PAGE, "reads": rounds, "block": 4 * PAGE, "work": 20}
    some = {"memory": "4MiB", "pool": {"min": 2, "max": 4, "batch": 2}}
    log = {"method": "write-protect", "every": "20us"}
    simulation = Simulation(
        scenario(
            {"name": "logged", "mode": "ept", "dirty_log": log, "workload": churn, **some},
            {"name": "shadowed", "mode": "shadow", "workload": churn, **some},
            {"name": "switching", "mode": "agile", "workload": churn, **some},
            {"name": "reader", "mode": "ept", "workload": disk, **some},
            memory="16MiB",
            cores=2,
        )
    )
    simulation.outcome = simulation.run()  # type: ignore[attr-defined]
    return simulation


def kept(rounds: int) -> int:
    """Return the bytes that a run has at its end."""
    tracemalloc.start()
    try:
        simulation = long_run(rounds)
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        assert simulation.outcome.end  # type: ignore[attr-defined]
    finally:
        tracemalloc.stop()
    return size


def test_eight_times_the_time_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    long_run(10)  # compiles, and fills caches
    grown = kept(320) - kept(40)
    monkeypatch.setattr(log, "LIMIT", 16)
    once, twice, eight = (kept(40 * times) for times in (1, 2, 8))
    assert max(twice, eight) - once < grown / SHARE


def test_a_log_thinned_out_loses_no_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = long_run(80).outcome  # type: ignore[attr-defined]
    monkeypatch.setattr(log, "LIMIT", LIMIT)
    thin = long_run(80).outcome  # type: ignore[attr-defined]
    assert whole.end == thin.end
    assert max(len(rows(name, thin)) for name in ("messages", "dirty")) <= LIMIT < len(rows("messages", whole))
    assert len(thin.vms[0].dirty) < len(whole.vms[0].dirty)
    extents = ("noted", "left_out", "every")
    first, second = ([row for row in rows("figures", each) if row["figure"] not in extents] for each in (whole, thin))
    assert first == second
    for row in rows("figures", thin):
        if row["vm"] and row["component"] == "messages":
            name, kind = row["vm"], row["figure"]
            said = [each for each in rows("messages", whole) if (each["vm"], each["kind"]) == (name, kind)]
            assert len(said) == row["value"]
    log_of = thin.vms[0].figures.named("dirty_log")
    assert log_of["readings"] == len(whole.vms[0].dirty)
    assert log_of["pages"] == sum(each.pages for each in whole.vms[0].dirty)
    assert log_of["host_cycles"] == sum(each.cycles for each in whole.vms[0].dirty)


def test_a_sum_that_cannot_be_counted_is_refused() -> None:
    """As of waits for a device, of which each is far shorter than 2**63 cycles."""
    simulation = Simulation(scenario(vm()))
    simulation.vms[0].ledger.counters("device", lambda: {"waited": 1 << 63})
    with pytest.raises(InputError, match=r"more than 2\*\*63 - 1 cycles"):
        simulation.run()
