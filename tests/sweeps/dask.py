"""A real Dask cluster on the loopback interface: a scheduler and workers, each a process that can be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client


class DaskCluster:
    """A scheduler and its workers, started from the command line as a user starts them."""

    def __init__(self, folder: Path, *, lives: int) -> None:
        self.folder = folder
        self.lives = lives
        self.processes: list[subprocess.Popen[bytes]] = []
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        file = folder / "scheduler.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        self.scheduler = self._start("scheduler", *options, "--dashboard-address", "127.0.0.1:0")
        until(file.exists)
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            self.address: str = client.scheduler.address

    def add_worker(self, threads: int, *, nanny: bool = False) -> None:
        """Start one; a nanny starts another in the place of one that dies."""
        kind = "--nanny" if nanny else "--no-nanny"
        options = ["--host", "127.0.0.1", "--nthreads", str(threads), kind, "--no-dashboard"]
        worker = self._start("worker", self.address, *options, "--local-directory", str(self.folder))
        self.workers[worker.pid] = worker

    def kill(self, pid: int) -> None:
        self.workers[pid].send_signal(signal.SIGKILL)
        self.workers.pop(pid).wait()

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments]
        environment = os.environ | {
            "PYTHONPATH": str(Path(__file__).parents[2]),  # for functions of the tests
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(self.lives - 1),
        }
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.folder)
        self.processes.append(process)
        return process


@contextmanager
def dask_cluster(
    folder: Path, *, workers: int = 2, threads: int = 1, nanny: bool = False, lives: int = 2
) -> Iterator[DaskCluster]:
    """Give a cluster that gives up a call when `lives` workers died of it."""
    cluster = DaskCluster(folder, lives=lives)
    try:
        for _ in range(workers):
            cluster.add_worker(threads, nanny=nanny)
        if workers:
            with Client(cluster.address, set_as_default=False) as client:
                client.wait_for_workers(workers, timeout=60)
        yield cluster
    finally:
        cluster.close()


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)
