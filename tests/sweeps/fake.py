"""Points that cost nothing: what the machinery of sweeps does is tested without simulating."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from vmsim.record.tables import TABLES
from vmsim.sweeps import Sweep
from vmsim.sweeps.worker import Batch, Done, Job

COLUMNS = TABLES["summary"][0]
BASE = """
[base.host]
memory = "64MiB"
[base.host.pool]
max = 64
[[base.vm]]
name = "one"
memory = "4MiB"
mode = "ept"
workload = { kind = "uniform", footprint = "1MiB", accesses = 100 }
"""


def sweep(points: int, tables: str = "", **axes: Any) -> Sweep:
    """Return a sweep of so many points, differing in the seed-free number of accesses."""
    import tomli_w

    named = {"vm.workload.accesses": [100 + place for place in range(points)], **axes}
    return Sweep.from_toml(tables + tomli_w.dumps({"axes": named}) + BASE)


def work(
    batch: Batch,
    sleep: float = 0.0,
    fail: tuple[int, ...] = (),
    die: tuple[int, ...] = (),
    once: str = "",
) -> list[Done]:
    """Make up rows, the same for the same point: `fail` and `die` at some numbers of accesses."""
    return [_done(job, sleep, fail, die, once) for job in batch.jobs]


def _done(job: Job, sleep: float, fail: tuple[int, ...], die: tuple[int, ...], once: str) -> Done:
    time.sleep(sleep)
    accesses = job.settings["vm.workload.accesses"]
    if accesses in die and not (once and Path(once, str(accesses)).exists()):
        if once:
            Path(once, str(accesses)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if accesses in fail:
        return Done(job.place, [], f"Traceback\nValueError: {accesses}\n", sleep)
    return Done(job.place, [_row(job, vm) for vm in ("a", "b")], "", sleep)


def _row(job: Job, vm: str) -> list[Any]:
    text = f"{sorted(job.settings.items())} {job.seed} {vm}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    made = {"str": vm, "int64": number, "float64": number / 7, "bool": bool(number & 1)}
    return [made[kind] for kind in COLUMNS.values()]


def contents(folder: Path) -> dict[str, bytes]:
    """Return all that must be equal of two stores."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timings.csv"
    }
