"""Where points run: in this process, or in processes of this machine. A cluster is in `vmsim.sweeps.cluster`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from vmsim.base.spawning import Spawn, cores, safely
from vmsim.sweeps.worker import attend

__all__ = ["Here", "cores", "executor_at", "processes"]

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


def processes(jobs: int, base: str = "", folder: str = ".") -> Callable[[], Executor]:
    """Return what makes a pool of `jobs` processes, warmed up for a base scenario.

    The processes are spawned, not forked: what this process has open or running does not reach them.
    """

    def make() -> Executor:
        if base:
            from vmsim.jit.kernel_cache import root

            root()  # where there is no folder for kernels, all processes are to have the same temporary one
        arguments: tuple[Any, ...] = (base, folder)
        with safely():
            return ProcessPoolExecutor(jobs, Spawn(), initializer=attend, initargs=arguments)

    return make


def executor_at(scheduler: str | None) -> Callable[[], Executor] | None:
    """Return what connects to a Dask cluster, by its address or its file for SLURM; None without one."""
    if scheduler is None:
        return None
    from vmsim.sweeps.cluster import connect

    return partial(connect, scheduler)
