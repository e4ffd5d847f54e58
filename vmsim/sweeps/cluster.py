"""Executors on other machines: a running Dask scheduler by its address, or workers that SLURM starts.

Dask moves the calls and their results; what is a point, in which order rows are stored and what is done about
failures is decided by the caller of submit, as with any `concurrent.futures.Executor`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Annotated, Any, ClassVar, Final, NamedTuple, ParamSpec, Self, TypeVar

from pydantic import Field

from vmsim.base.errors import InputError
from vmsim.base.units import format_size
from vmsim.scenario.document import Document
from vmsim.scenario.types import Cores, Positive, Size

__all__ = ["ClusterExecutor", "Slurm", "Stand", "connect"]

P = ParamSpec("P")
R = TypeVar("R")

_WAIT: Final = 10.0
_WORD: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.,@+-]{0,127}$"  # what ends up in a job script must not be able to add to it
_WALLTIME: Final = r"^([0-9]{1,3}-)?[0-9]{1,3}:[0-9]{2}:[0-9]{2}$"


class Stand(NamedTuple):
    """What must be the same on both sides, so that results are."""

    vmsim: str
    model: str
    kernels: str

    @classmethod
    def here(cls) -> Self:
        """Return that of this process."""
        from importlib.metadata import version

        from vmsim.jit import source_digest
        from vmsim.sweeps.points import MODEL

        return cls(version("vmsim"), str(MODEL), source_digest())

    def __str__(self) -> str:
        return f"vmsim {self.vmsim}, model {self.model}, kernels {self.kernels[:12]}"


class Slurm(Document):
    """A cluster file: what to ask SLURM for.

    It cannot contain shell commands, so that a file from someone else is safe. Modules to load and the like
    are set once for all in the user's own ``~/.config/dask/jobqueue.yaml`` (``job-script-prologue``).
    """

    what: ClassVar = "cluster file"

    workers: Positive = Field(description="Worker processes in all, over all jobs.")
    cores: Cores = Field(default=1, description="Cores of a job: as many workers run in it.")
    memory: Size = Field(description="Memory of a job.")
    walltime: Annotated[str, Field(pattern=_WALLTIME)] = Field(
        default="01:00:00", description="Longest time of a job: hours:minutes:seconds, or days-hours:minutes:seconds."
    )
    queue: Annotated[str, Field(pattern=_WORD)] | None = Field(default=None, description="Partition.")
    account: Annotated[str, Field(pattern=_WORD)] | None = Field(default=None, description="Account to charge.")
    interface: Annotated[str, Field(pattern=_WORD)] | None = Field(
        default=None, description="Network interface between the workers and here, such as ib0."
    )

    def start(self) -> Any:
        """Return a `dask_jobqueue.SLURMCluster` that has asked for its jobs.

        Raises
        ------
        InputError
            There is no SLURM here, or it refuses the jobs.
        """
        import dask_jobqueue

        if which("sbatch") is None:
            raise InputError("SLURM is not here: there is no command sbatch. Start vmsim where jobs are submitted.")
        jobs = -(-self.workers // self.cores)
        try:
            cluster: Any = dask_jobqueue.SLURMCluster(  # type: ignore[attr-defined]  # lazily exported
                queue=self.queue,
                account=self.account,
                interface=self.interface,
                cores=self.cores,
                processes=self.cores,
                memory=format_size(self.memory),
                walltime=self.walltime,
                scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"No scheduler can be started here for the workers: {str(error).strip()}") from error
        try:
            cluster.sync(_ask, cluster, jobs)
        except (OSError, RuntimeError) as error:
            with suppress(AssertionError):  # jobs that were never submitted cannot be ended
                cluster.close(timeout=_WAIT)
            raise InputError(f"SLURM does not take the jobs: {str(error).strip()}") from error
        return cluster


async def _ask(cluster: Any, jobs: int) -> None:
    """Submit jobs. `SLURMCluster.scale` does so too, but only logs a refusal; workers would be waited for in vain."""
    for _ in range(jobs):
        cluster.worker_spec.update(cluster.new_worker_spec())
    await cluster._correct_state()


class ClusterExecutor(Executor):
    """The workers of a Dask scheduler as an executor.

    Each call first compares the worker's vmsim with this one, so that no worker that comes later slips through, and
    a worker runs one call at a time, however many threads it has.

    Parameters
    ----------
    client : distributed.Client
        Connected.
    cluster : object, optional
        Closed with it.
    """

    def __init__(self, client: Any, cluster: Any = None) -> None:
        self.client = client
        self.cluster = cluster
        self._executor = client.get_executor(pure=False)
        self._stand = Stand.here()

    @property
    def workers(self) -> int:
        """How many calls can run at once, by now."""
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run a call on some worker.

        The future raises `concurrent.futures.BrokenExecutor` where the call has lost too many workers, the scheduler
        is gone, or the worker has another vmsim: a worker that connects again learns which.
        """
        outer: Future[R] = Future()
        inner = self._executor.submit(_guarded, self._stand, fn, args, kwargs)
        inner.add_done_callback(lambda done: _hand_over(done, outer))
        outer.add_done_callback(lambda done: inner.cancel() if done.cancelled() else None)
        return outer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Drop what has not run, or wait for it; then leave the scheduler, and end the jobs that were asked for."""
        with suppress(Exception):  # a scheduler that is gone has nothing left to wait for
            self._executor.shutdown(wait=wait and not cancel_futures)
        self.client.close(timeout=_WAIT)
        if self.cluster is not None:
            self.cluster.close(timeout=_WAIT)


def connect(scheduler: str, *, wait: float = _WAIT) -> ClusterExecutor:
    """Return an executor on a cluster.

    Parameters
    ----------
    scheduler : str
        Address of a Dask scheduler (``tcp://login:8786``), or a cluster file (``slurm.toml``).
    wait : float, optional
        Seconds to wait for the scheduler at an address, and for its first worker. SLURM's queue is waited for as
        long as it takes.

    Raises
    ------
    InputError
        The extra is not installed, nobody answers, there are no workers, or they have another vmsim.
    """
    needed = ("distributed", "dask_jobqueue") if scheduler.endswith(".toml") else ("distributed",)
    if any(find_spec(module) is None for module in needed):
        raise InputError('--scheduler needs Dask, which is not installed here: pip install "vmsim[cluster]".')
    if scheduler.endswith(".toml"):
        asked = Slurm.load(Path(scheduler))
        cluster = asked.start()
        return ClusterExecutor(_client(cluster, scheduler, wait), cluster)
    executor = ClusterExecutor(_client(scheduler, scheduler, wait))
    try:
        _check_workers(executor.client, scheduler, wait)
    except BaseException:
        executor.shutdown(wait=False)
        raise
    return executor


def _client(address: Any, name: str, wait: float) -> Any:
    import distributed
    from distributed.comm.addressing import parse_address
    from distributed.comm.registry import get_backend

    connect_to: Any = distributed.Client
    try:
        if isinstance(address, str):
            get_backend(parse_address(address)[0])  # before a client exists
        return connect_to(address, timeout=wait, name="vmsim", set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise InputError(
            f"--scheduler {name}: nobody answers there within {wait:.0f} s. Is the scheduler running "
            f"(dask scheduler), and can this machine reach it?"
        ) from error
    except ValueError as error:
        raise InputError(
            f"--scheduler {name}: not an address ({error}); expected one such as tcp://127.0.0.1:8786, or a cluster "
            f"file that ends in .toml."
        ) from error


def _check_workers(client: Any, name: str, wait: float) -> None:
    """Refuse a scheduler without workers, and workers with another vmsim."""
    try:
        client.wait_for_workers(1, timeout=wait)
    except TimeoutError:
        raise InputError(
            f"--scheduler {name}: there are no workers after {wait:.0f} s. Start some: dask worker {name} --nthreads 1"
        ) from None
    here = Stand.here()
    try:
        found: dict[str, Any] = client.run(_stand, on_error="return")
    except ModuleNotFoundError as error:
        found = {"a worker": error}
    for worker in sorted(found):
        if found[worker] != tuple(here):
            raise InputError(f"--scheduler {name}: {_difference(worker, found[worker], here)}")


def _difference(worker: str, found: Any, here: Stand) -> str:
    there = f"has {Stand(*found)}" if isinstance(found, tuple) else f"cannot use vmsim ({found})"
    return f"{worker} {there}; here is {here}. Results would differ: install the same vmsim everywhere."


class _OtherVmsimError(Exception):
    """A worker that came later has another vmsim."""


_busy = threading.Lock()
_known: list[Stand] = []


def _stand() -> tuple[str, ...]:
    return tuple(Stand.here())


def _guarded(expected: Stand, fn: Callable[..., R], args: Any, kwargs: dict[str, Any]) -> R:
    """Run a call in a worker."""
    with _busy:
        if not _known:
            _known.append(Stand.here())
        if _known[0] != expected:
            raise _OtherVmsimError(_difference("A worker", _known[0], expected))
        return fn(*args, **kwargs)


def _hand_over(done: Future[R], outer: Future[R]) -> None:
    """Pass a result on; losses of workers are told as any pool of processes tells them."""
    from distributed import KilledWorker

    if outer.cancelled() or not outer.set_running_or_notify_cancel():
        return
    try:
        error = done.exception()
    except CancelledError:
        error = BrokenExecutor("the Dask scheduler has gone, or has dropped the call")
    if isinstance(error, KilledWorker):
        error = BrokenExecutor(f"the call was running when {error.last_worker.address} died, and others before it")
    elif isinstance(error, _OtherVmsimError):
        error = BrokenExecutor(str(error))
    if error is None:
        outer.set_result(done.result())
    else:
        outer.set_exception(error)
