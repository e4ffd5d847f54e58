"""Where points run: in this process, or in processes of this machine. A cluster is in `vmsim.sweeps.cluster`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, ParamSpec, TypeVar

from vmsim.sweeps.worker import attend

__all__ = ["Here", "Spawn", "cores", "executor_at", "processes"]

P = ParamSpec("P")
T = TypeVar("T")


class Here(Executor):
    """An executor that does everything at once, in this process."""

    def submit(self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> Future[T]:
        """Call a function, and return its outcome."""
        future: Future[T] = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(jobs: int, base: str = "", folder: str = ".") -> Callable[[], Executor]:
    """Return what makes a pool of `jobs` processes, warmed up for a base scenario.

    The processes are spawned, not forked: what this process has open or running does not reach them.
    """

    def make() -> Executor:
        if base:
            from vmsim.jit.kernel_cache import root

            root()  # where there is no folder for kernels, all processes are to have the same temporary one
        arguments: tuple[Any, ...] = (base, folder)
        with _safely():
            return ProcessPoolExecutor(jobs, Spawn(), initializer=attend, initargs=arguments)

    return make


class _Process(SpawnProcess):
    """A process that loads no module of the current folder, and that Ctrl-C does not reach before it can ignore it."""

    def start(self) -> None:
        with _safely():
            super().start()


class Spawn(SpawnContext):
    """How processes are started: `multiprocessing` would have them look for modules in the current folder first."""

    Process = _Process


@contextmanager
def _safely() -> Iterator[None]:
    """Have what is started in the block inherit a safe path, and a Ctrl-C that waits until it is let through."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    main = threading.current_thread() is threading.main_thread()
    held = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if main else None
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
        if held is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)


def executor_at(scheduler: str | None) -> Callable[[], Executor] | None:
    """Return what connects to a Dask cluster, by its address or its file for SLURM; None without one."""
    if scheduler is None:
        return None
    from vmsim.sweeps.cluster import connect

    return partial(connect, scheduler)
