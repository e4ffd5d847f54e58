"""Does a driver hand out the long points first, outlive its workers, and stop when told to?"""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps import fake
from vmsim.base.errors import InputError
from vmsim.sweeps import Sweep, read_failures, read_results, run_sweep
from vmsim.sweeps.executors import Here, processes
from vmsim.sweeps.worker import Batch, Done


def test_long_points_come_first(tmp_path: Path) -> None:
    order: list[int] = []

    def work(batch: Batch) -> list[Done]:
        order.extend(job.settings["vm.workload.accesses"] for job in batch.jobs)
        return fake.work(batch)

    accesses = [300, 7, 80_000, 12, 7000]
    text = f'axes."vm.workload.accesses" = {accesses}\nreplicates = 2\n'
    run_sweep(Sweep.from_toml(text + fake.BASE), tmp_path, jobs=1, work=work)
    assert order == [each for each in sorted(accesses, reverse=True) for _ in range(2)]
    assert read_results(tmp_path)["vm.workload.accesses"].to_list() == [each for each in accesses for _ in range(4)]


def test_short_points_go_out_many_at_a_time(tmp_path: Path) -> None:
    sizes: list[int] = []

    def work(batch: Batch) -> list[Done]:
        sizes.append(len(batch.jobs))
        return [each._replace(seconds=0.005) for each in fake.work(batch)]

    run_sweep(fake.sweep(1000), tmp_path, jobs=1, work=work)
    assert sizes[0] == 1  # nothing was known yet
    assert max(sizes) >= 40
    assert len(sizes) < 60
    assert sizes[-1] == 1


@pytest.mark.slow
def test_a_worker_that_dies_once_costs_nothing_but_time(tmp_path: Path) -> None:
    events: list[str] = []
    work = partial(fake.work, die=(104,), once=str(tmp_path))
    run_sweep(fake.sweep(30), tmp_path / "out", jobs=2, work=work, listener=lambda event: events.append(event["event"]))
    run_sweep(fake.sweep(30), tmp_path / "expected", jobs=1, work=fake.work)
    assert "lost" in events
    assert fake.contents(tmp_path / "out") == fake.contents(tmp_path / "expected")


@pytest.mark.slow
def test_a_point_that_kills_every_worker_is_recorded_as_failed_and_no_other(tmp_path: Path) -> None:
    work = partial(fake.work, die=(104,))
    summary = run_sweep(fake.sweep(10), tmp_path, jobs=1, executor=processes(1), work=work, retries=0)
    assert (summary.done, summary.failed) == (9, 1)
    assert "The worker died" in read_failures(tmp_path)["failure"].item()
    assert 104 not in set(read_results(tmp_path)["vm.workload.accesses"])


@pytest.mark.slow
def test_workers_that_cannot_even_start_end_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing can be run"):
        run_sweep(fake.sweep(30), tmp_path, jobs=1, executor=processes(1), work=_die, retries=0)


def _die(batch: Batch) -> list[Done]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_lets_running_points_end_and_the_rest_can_be_resumed(tmp_path: Path, jobs: int) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "done":
            os.kill(os.getpid(), signal.SIGINT) if not told else None
            told.append(1)

    told: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    work = partial(fake.work, sleep=0.01)
    summary = run_sweep(fake.sweep(200), tmp_path / "out", jobs=jobs, work=work, listener=stop)
    assert summary.interrupted
    assert 0 < summary.done < 200
    assert signal.getsignal(signal.SIGINT) is handler
    rest = run_sweep(fake.sweep(200), tmp_path / "out", jobs=1, work=fake.work)
    assert rest.recorded == summary.done
    run_sweep(fake.sweep(200), tmp_path / "expected", jobs=1, work=fake.work)
    assert fake.contents(tmp_path / "out") == fake.contents(tmp_path / "expected")


@pytest.mark.slow
def test_a_second_ctrl_c_drops_what_runs(tmp_path: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "started":
            for delay in (1.0, 1.5):
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_sweep(fake.sweep(4), tmp_path, jobs=2, work=partial(fake.work, sleep=60), listener=stop)
    assert time.monotonic() - started < 30
    assert run_sweep(fake.sweep(4), tmp_path, jobs=1, work=fake.work).done == 4


@pytest.mark.slow
def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    from tests.sweeps import kill

    child = kill.start(tmp_path / "out", jobs=2, sleep=0.5)
    kill._until_begun(tmp_path / "out", child)
    limit = time.monotonic() + 20
    while len(workers := kill._children(child.pid)) < 2:
        assert time.monotonic() < limit
        time.sleep(0.05)
    child.kill()
    child.communicate(timeout=30)
    while any(Path(f"/proc/{pid}").exists() and kill._command(pid) for pid in workers):
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_it_runs_where_signals_cannot_be_handled(tmp_path: Path) -> None:
    thread = threading.Thread(
        target=run_sweep, args=(fake.sweep(5), tmp_path), kwargs={"executor": Here, "work": fake.work}
    )
    thread.start()
    thread.join()
    assert len(read_results(tmp_path)) == 10


def test_a_pool_is_made_as_large_as_asked() -> None:
    with processes(2)() as pool:
        assert pool._max_workers == 2  # type: ignore[attr-defined]
