"""Measure what sweeps must hold; see docs/reference/sweeps.md.

python -m tests.sweeps.measure short          2,000 points of 5 ms on two processes
python -m tests.sweeps.measure many [POINTS]  100,000 points: enumerate, record, open; memory of the driver
python -m tests.sweeps.measure small          what one small real point costs, and where
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.sweeps import fake
from vmsim.scenario import Scenario
from vmsim.sweeps import read_results, run_sweep


def short(out: Path, points: int = 2000, seconds: float = 0.005) -> None:
    seen: list[float] = []

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "done":
            seen.append(time.perf_counter())

    # The first points warm two processes up; what is measured begins when they answer.
    run_sweep(fake.sweep(points), out, jobs=2, work=partial(fake.work, sleep=seconds), listener=listen)
    took, ideal = seen[-1] - seen[0], points * seconds / 2
    print(f"{points:,} points of {seconds * 1000:g} ms: {took:.2f} s, ideal {ideal:.2f} s: {ideal / took:.0%}")


def many(out: Path, points: int = 100_000) -> None:
    marks: dict[str, float] = {}
    memory: dict[str, float] = {}

    def listen(event: dict[str, Any]) -> None:
        marks.setdefault(event["event"], time.perf_counter())
        memory[event["event"]] = _megabytes()

    sweep = fake.sweep(points)
    started = time.perf_counter()
    run_sweep(sweep, out, jobs=1, work=fake.work, listener=listen)
    done = time.perf_counter()
    print(f"{points:,} points enumerated in {marks['planned'] - started:.1f} s, run in {done - marks['planned']:.1f} s")
    print(f"driver: {memory['planned']:.0f} MB after enumerating, {_megabytes():.0f} MB at the end, "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most")  # fmt: skip
    import pandas as pd

    print(f"read_results: {_seconds(lambda: read_results(out)):.2f} s")
    print(f"pandas.read_parquet: {_seconds(lambda: pd.read_parquet(out / 'results')):.2f} s")
    print(f"bytes: {sum(path.stat().st_size for path in (out / 'results').iterdir()):,}")


def small(out: Path) -> None:
    from vmsim.engine.run import simulate
    from vmsim.engine.simulation import Simulation
    from vmsim.sweeps.plan import Plan
    from vmsim.sweeps.worker import execute

    base = Scenario.from_toml(fake.BASE.replace("[base.", "[").replace("[[base.", "[["))
    plan = Plan.of(fake.sweep(50))
    execute(plan.batch([0]))
    print(f"a point in a worker: {_each(lambda: execute(plan.batch([7]))):.2f} ms, of these")
    print(f"  simulation: {_each(lambda: Simulation(base).run()):.2f} ms")
    print(f"  its construction: {_each(lambda: Simulation(base)):.2f} ms")
    print(f"  scenario from settings: {_each(lambda: base.replace(**{'vm.workload.accesses': 107})):.2f} ms")
    print(f"not paid: the rehearsal that simulate() makes: {_each(lambda: simulate(base)):.2f} ms in all")
    print(f"enumerating a point: {_each(lambda: Plan.of(fake.sweep(50))) / 50:.2f} ms")
    print(f"  its canonical text: {_each(base.canonical):.2f} ms, the CPU in it {_each(base.cpu.canonical):.2f} ms")


def _megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _each(call: Callable[[], object]) -> float:
    return min(_seconds(call) for _ in range(20)) * 1000


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="vmsim-measure-"))
    what, *rest = sys.argv[1:] or ["short"]
    {"short": short, "many": many, "small": small}[what](folder / "store", *map(int, rest))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
