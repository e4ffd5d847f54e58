from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vmsim.base.histogram import Histogram
from vmsim.base.ledger import Ledger, Reading
from vmsim.record.log import Log
from vmsim.record.messages import Kind, MessageLog
from vmsim.record.outcome import DirtyRound, Ending, Outcome, Sample, SampleLog, Transfer, VmOutcome, transfer_log
from vmsim.record.result import Result
from vmsim.scenario import Scenario

SCENARIO = """
seed = 7
[host]
cpu = "skylake-x"
memory = "1GiB"
[[vm]]
name = "a"
memory = "64MiB"
mode = "ept"
workload = { kind = "uniform", footprint = "1MiB", accesses = 1000 }
[[vm]]
name = "b"
memory = "64MiB"
mode = "native"
workload = { kind = "sequential", footprint = "1MiB", accesses = 300 }
"""

NO_EXITS = {"exits": {}, "exit_cycles": {}}
COUNTERS = (
    "accesses",
    "writes",
    "l1_tlb_misses",
    "l2_tlb_misses",
    "walks",
    "nested_walks",
    "ntlb_hits",
    "ntlb_misses",
    "dirty_walks",
    "ad_updates",
)


def reading(counted: Any, arrays: Any, times: dict[int, int]) -> Reading:
    ledger = Ledger()
    for component, figures in counted.items():
        ledger.counters(component, lambda figures=figures: figures)
    for component, array in arrays.items():
        ledger.array(component, array, *(map(str, range(size)) for size in array.shape))
    histogram = Histogram()
    for cycles, count in times.items():
        histogram.add(cycles, count)
    ledger.histogram("fault_latency", histogram)
    ledger.kinds(lambda: [("zero-fill", histogram.copy())])
    return ledger.read()


def a_vm(name: str = "a", **changes: Any) -> VmOutcome:
    refs = np.zeros((6, 6, 5), np.int64)
    refs[4, 4, 3] = 10
    refs[4, 0, 0] = 7
    refs[1, 0, 4] = 5  # a page walk cache held it: no reference
    pwc = np.zeros((2, 6, 2), np.int64)
    pwc[0, 2] = 3, 9  # 3 misses, 9 hits
    counted: dict[str, Any] = {
        "processor": {counter: place for place, counter in enumerate(COUNTERS, start=50)} | {"accesses": 1000},
        "cycles": {
            "compute": 1000,
            "data": 0,
            "l2_tlb": 40,
            "walk_guest": 60,
            "walk_nested": 90,
            "guest_fault": 500,
            "exit": 700,
            "pool_wait": 30,
            "host_wait": 20,
            "switch": 8,
            "pcpu_wait": 2,
        },
        "exits": {"EPT_VIOLATION": 3},
        "exit_cycles": {"EPT_VIOLATION": 700},
        "waits": {"pool_wait": 2, "host_wait": 1, "pcpu_wait": 1},
        "guest": {"faults": 5},
        "shadow": {"filled": 3},
        "software_tlb": {"hits": 2},
        "pagers": {"data_3": 3},
    }
    times = changes.pop("fault_latency", {220: 2, 310: 1})
    counted |= changes.pop("counted", {})
    values: dict[str, Any] = {
        "name": name,
        "index": 0,
        "group": name,
        "mode": "ept",
        "workload": "uniform",
        "start": 100,
        "finish": 100 + 1000 + 40 + 60 + 90 + 500 + 700 + 30 + 20 + 8 + 2,
        "finished": True,
        "figures": reading(counted, {"walk_references": refs, "pwc": pwc, "data": np.array([4, 0, 0, 1])}, times),
        "dirty": [DirtyRound(3300, 7, 700)],
        "memory": {"guest": 12, "table": 4, "pool": 64},
    }
    return VmOutcome(**{**values, **changes})


def moved(*transfers: Transfer) -> Log[Transfer]:
    log = transfer_log()
    for transfer in transfers:
        log.append(transfer)
    return log


def sampled() -> dict[str, SampleLog]:
    logs = {name: SampleLog() for name in ("", "a")}
    for log in logs.values():
        log.append(Sample(3_300, 900, 10, 5, 0, 70, 30, 4, 64, 4744, 700, 600))
    return logs


def said() -> MessageLog:
    log = MessageLog()
    log.add(3_300, 0, Kind.GRANT, 256, 2_000)
    log.add(330, 0, Kind.NEED_PAGES, 8, 1_000)
    return log


@pytest.fixture
def make_outcome() -> Callable[..., Outcome]:
    def make(**changes: Any) -> Outcome:
        values: dict[str, Any] = {
            "vms": [
                a_vm("a"),
                a_vm("b", index=1, mode="native", workload="sequential", counted=NO_EXITS, fault_latency={}),
            ],
            "transfers": moved(
                Transfer(0, "a", "initial", 1024, 1024, 5000),
                Transfer(3_300, "a", "grant", 256, 320, 4744),
            ),
            "messages": said(),
            "samples": sampled(),
            "frequency": 3_300_000_000,
            "latency": (4, 14, 75, 279, 0),
            "end": 9000,
            "wall_seconds": 0.5,
            "ending": None,
        }
        return Outcome(**{**values, **changes})

    return make


@pytest.fixture
def scenario() -> Scenario:
    return Scenario.from_toml(SCENARIO)


@pytest.fixture
def result(scenario: Scenario, make_outcome: Callable[..., Outcome]) -> Result:
    return Result(scenario, make_outcome(), inputs={"traces/x": "00"})


@pytest.fixture
def stopped(scenario: Scenario, make_outcome: Callable[..., Outcome]) -> Result:
    ending = Ending(123_456, "a", "64 pages", "The host is out of memory: VM <a> asked for 64 pages.")
    return Result(scenario, make_outcome(ending=ending))
