"""Do workers on a Dask cluster, started here on the loopback interface, do what workers here do?"""

import asyncio
import gc
import os
import stat
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import BrokenExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps import fake
from tests.sweeps.dask import DaskCluster, dask_cluster, until
from vmsim.base.errors import InputError
from vmsim.cli import main
from vmsim.sweeps import cluster, read_failures, read_results, run_sweep
from vmsim.sweeps.cluster import Slurm, Stand, connect

SLURM = """
workers = 5
cores = 2
memory = "8GiB"
walltime = "00:10:00"
queue = "short"
account = "memory-lab"
"""


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask"), threads=2) as made:
        yield made


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """One whose workers may be killed, four of them in all."""
    with dask_cluster(tmp_path_factory.mktemp("mortal"), workers=5) as made:
        yield made


def sleep_then_say(path: str, seconds: float) -> int:
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)
    return os.getpid()


def overlap(_: int) -> tuple[int, float, float]:
    started = time.monotonic()
    time.sleep(0.05)
    return os.getpid(), started, time.monotonic()


def fail(text: str) -> None:
    raise LookupError(text)


def end_the_worker() -> None:
    os._exit(9)


@pytest.mark.slow
def test_calls_run_in_both_workers_and_results_come_back(dask: DaskCluster) -> None:
    with connect(dask.address) as executor:
        assert executor.workers == 2
        futures = [executor.submit(divmod, number, 7) for number in range(50)]
        assert [future.result(30) for future in futures] == [divmod(number, 7) for number in range(50)]
        seen = {future.result(30) for future in [executor.submit(sleep_then_say, os.devnull, 0.2) for _ in range(4)]}
        assert seen == {*dask.workers}


@pytest.mark.slow
def test_an_exception_comes_back_as_itself(dask: DaskCluster) -> None:
    with connect(dask.address) as executor, pytest.raises(LookupError, match="no such page"):
        executor.submit(fail, "no such page").result(30)


@pytest.mark.slow
def test_what_was_cancelled_never_runs(dask: DaskCluster, tmp_path: Path) -> None:
    executor = connect(dask.address)
    futures = [executor.submit(sleep_then_say, str(tmp_path / str(number)), 0.5) for number in range(12)]
    until(lambda: any(tmp_path.iterdir()))
    executor.shutdown(cancel_futures=True)
    time.sleep(0.6)
    assert len([*tmp_path.iterdir()]) < len(futures)
    started = len([*tmp_path.iterdir()])
    time.sleep(0.6)
    assert len([*tmp_path.iterdir()]) == started


@pytest.mark.slow
def test_a_worker_runs_one_call_at_a_time_however_many_threads_it_has(dask: DaskCluster) -> None:
    with connect(dask.address) as executor:
        spans = sorted(future.result(30) for future in [executor.submit(overlap, each) for each in range(16)])
    for (worker, _, end), (other, start, _) in pairwise(spans):
        assert worker != other or end <= start


@pytest.mark.slow
def test_what_a_killed_worker_was_doing_another_one_does(mortal: DaskCluster, tmp_path: Path) -> None:
    with connect(mortal.address) as executor:
        said = tmp_path / "running"
        future = executor.submit(sleep_then_say, str(said), 1.0)
        until(lambda: said.exists() and said.read_text() != "")
        first = int(said.read_text())
        mortal.kill(first)
        assert future.result(60) in mortal.workers
        assert first not in mortal.workers


@pytest.mark.slow
def test_a_call_that_kills_its_workers_is_told_as_a_broken_pool(mortal: DaskCluster) -> None:
    with connect(mortal.address) as executor:
        doomed = executor.submit(end_the_worker)
        with pytest.raises(BrokenExecutor, match="died"):
            doomed.result(60)
        assert executor.submit(divmod, 7, 2).result(60) == (3, 1)


@pytest.mark.parametrize("address", ["no://x", "nonsense", "tcp://127.0.0.1:999999", ""])
def test_what_is_no_address_is_refused_at_once(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a client that is made in vain, and complains 20 seconds later that it cannot be closed."""
    start = time.monotonic()
    with pytest.raises(InputError, match=r"not an address|nobody answers"):
        connect(address, wait=0.5)
    gc.collect()
    assert time.monotonic() - start < 15
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_scheduler_without_workers_is_refused_and_one_that_goes_away_is_a_broken_pool(tmp_path: Path) -> None:
    with dask_cluster(tmp_path, workers=0) as made:
        with pytest.raises(InputError, match=r"no workers .*dask worker tcp://"):
            connect(made.address, wait=0.3)
        made.add_worker(threads=1)
        executor = connect(made.address, wait=60)
        said = tmp_path / "running"
        future = executor.submit(sleep_then_say, str(said), 30.0)
        until(said.exists)
        made.scheduler.kill()
        with pytest.raises(BrokenExecutor, match="scheduler has gone"):
            future.result(40)
        executor.shutdown(wait=False)


@pytest.mark.slow
def test_a_sweep_on_the_cluster_has_the_bytes_of_one_here(dask: DaskCluster, tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(fake.sweep(4, "replicates = 2\n").to_toml())
    here, there = tmp_path / "here", tmp_path / "there"
    for out, how in ((here, ["--jobs", "1"]), (there, ["--scheduler", dask.address])):
        with pytest.raises(SystemExit) as leaving:
            main(["sweep", str(file), "--out", str(out), "--json", *how])
        assert leaving.value.code == 0
    assert len(read_results(there)) == 8
    assert fake.contents(there) == fake.contents(here)


@pytest.mark.slow
def test_a_worker_killed_amid_a_sweep_costs_no_point_and_no_byte(mortal: DaskCluster, tmp_path: Path) -> None:
    sweep = fake.sweep(60)
    here, there = tmp_path / "here", tmp_path / "there"
    run_sweep(sweep, here, jobs=1, work=fake.work)
    done: list[str] = []

    def kill_one(event: dict[str, Any]) -> None:
        if event["event"] == "done":
            done.append(event["point"])
            if len(done) == 20:
                with connect(mortal.address) as executor:
                    mortal.kill(executor.submit(os.getpid).result(30))

    work = partial(fake.work, sleep=0.02)
    run_sweep(sweep, there, executor=partial(connect, mortal.address), work=work, listener=kill_one)
    assert len(done) == len({*done}) == 60
    assert fake.contents(there) == fake.contents(here)


@pytest.mark.slow
def test_a_point_whose_workers_always_die_is_recorded_as_failed_and_the_others_are_done(tmp_path: Path) -> None:
    with dask_cluster(tmp_path, workers=1, nanny=True, lives=1) as made:
        work = partial(fake.work, die=(103,))
        executor = partial(connect, made.address, wait=60.0)
        summary = run_sweep(fake.sweep(8), tmp_path / "store", executor=executor, work=work, retries=0)
    assert (summary.done, summary.failed) == (7, 1)
    assert "died" in read_failures(tmp_path / "store")["failure"][0]


@pytest.mark.slow
def test_workers_with_another_vmsim_are_refused(dask: DaskCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Stand.here()
    monkeypatch.setattr(Stand, "here", lambda: here._replace(model="0"))
    with pytest.raises(InputError, match=f"model {here.model}, .*; here is .*model 0, .*same vmsim everywhere"):
        connect(dask.address)


@pytest.mark.slow
def test_a_worker_with_another_vmsim_that_comes_late_gets_no_point(
    dask: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = connect(dask.address)
    monkeypatch.setattr(executor, "_stand", Stand.here()._replace(kernels="0" * 64))
    with pytest.raises(BrokenExecutor, match="kernels 000000000000"):
        executor.submit(divmod, 1, 1).result(30)
    executor.shutdown()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://127.0.0.1:9", "nobody answers there"),
        ("127.0.0.1:9", "nobody answers there"),
        ("carrier-pigeon://here:1", "not an address"),
    ],
)
def test_an_address_that_leads_nowhere_is_said_to(address: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        connect(address, wait=0.5)


@pytest.mark.parametrize("scheduler", ["tcp://127.0.0.1:9", "slurm.toml"])
def test_without_the_extra_it_says_what_to_install(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=r'pip install "vmsim\[cluster\]"'):
        connect(scheduler)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("workres = 4", ":2: workres: unknown key. Did you mean 'workers'"),
        ("workers = 0", "expected at least 1"),
        ("workers = 4\nmemory = 'much'", "not a size"),
        ("workers = 4\nmemory = '1GiB'\nwalltime = '1 hour'", "walltime"),
        ('workers = 4\nmemory = "1GiB"\nqueue = "short\\ncurl example.org | sh"', "queue"),
        ('workers = 4\nmemory = "1GiB"\naccount = "$(id)"', "account"),
        ('workers = 4\nmemory = "1GiB"\njob_script_prologue = ["rm"]', "unknown key"),
    ],
)
def test_a_cluster_file_can_say_nothing_but_what_it_should(line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "slurm.toml"
    file.write_text("\n" + line)
    with pytest.raises(InputError) as raised:
        connect(str(file))
    assert said in str(raised.value)


def test_a_missing_cluster_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such cluster file"):
        connect(str(tmp_path / "slurm.toml"))


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put commands that stand in for SLURM's on the path."""

    def put(**texts: str) -> None:
        (tmp_path / "bin").mkdir()
        for name, text in texts.items():
            tool = tmp_path / "bin" / name
            tool.write_text(f"#!/bin/sh\n{text}\n")
            tool.chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    return put


def test_without_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm.toml").write_text(SLURM)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no command sbatch"):
        connect(str(tmp_path / "slurm.toml"))


def test_what_slurm_refuses_is_refused(tmp_path: Path, tools: Callable[..., None]) -> None:
    (tmp_path / "slurm.toml").write_text(SLURM)
    tools(sbatch='echo "invalid partition specified: short" >&2; exit 1')
    with pytest.raises(InputError, match=r"(?s)SLURM does not take the jobs.*invalid partition"):
        connect(str(tmp_path / "slurm.toml"))


@pytest.mark.slow
def test_slurm_starts_the_workers_asked_for(
    tmp_path: Path, tools: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for sbatch keeps the job script and runs it here."""
    (tmp_path / "slurm.toml").write_text(SLURM.replace("workers = 5\ncores = 2", "workers = 2\ncores = 1"))
    # The script that it is given is gone when it returns, so the job runs a copy.
    submit = f'cp "$1" {tmp_path}/job.sh; cp "$1" {tmp_path}/$$.sh\n'
    submit += f"(sh {tmp_path}/$$.sh >{tmp_path}/log 2>&1 & echo $! >>{tmp_path}/pids)\n"
    tools(sbatch=submit + "echo Submitted batch job 17", scancel=f"echo $1 >>{tmp_path}/ended")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with connect(str(tmp_path / "slurm.toml")) as executor:
        future = executor.submit(divmod, 9, 4)
        try:
            assert future.result(60) == (2, 1)
        finally:
            future.cancel()  # or leaving would wait for workers that never come
    job = (tmp_path / "job.sh").read_text()
    assert "#SBATCH -p short" in job
    assert "#SBATCH -A memory-lab" in job
    assert "#SBATCH --cpus-per-task=1" in job
    assert "#SBATCH --mem=8G" in job
    assert "#SBATCH -t 00:10:00" in job
    assert sys.executable in job
    assert (tmp_path / "ended").read_text().split() == ["17"] * len((tmp_path / "pids").read_text().split())


def test_jobs_are_as_many_as_the_workers_need(
    tmp_path: Path, tools: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask_jobqueue

    asked: dict[str, object] = {}

    class Recorder:
        def __init__(self, **options: object) -> None:
            asked.update(options)

            self.worker_spec: dict[int, str] = {}

        def new_worker_spec(self) -> dict[int, str]:
            return {len(self.worker_spec): "job"}

        async def _correct_state(self) -> None:
            asked["jobs"] = len(self.worker_spec)

        def sync(self, made: Callable[..., Coroutine[None, None, None]], *arguments: object) -> None:
            asyncio.run(made(*arguments))

    monkeypatch.setattr(dask_jobqueue, "SLURMCluster", Recorder)
    tools(sbatch="")
    (tmp_path / "slurm.toml").write_text(SLURM)
    Slurm.load(tmp_path / "slurm.toml").start()
    assert (asked["jobs"], asked["cores"], asked["processes"], asked["memory"]) == (3, 2, 2, "8GiB")
