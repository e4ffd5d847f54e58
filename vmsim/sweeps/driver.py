"""Run a sweep: hand out what is missing, longest first, and record what comes back."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.engine.resident import most_jobs
from vmsim.sweeps.executors import Here, cores, processes
from vmsim.sweeps.plan import Plan
from vmsim.sweeps.shard import Shard
from vmsim.sweeps.store import Store
from vmsim.sweeps.sweep import Sweep
from vmsim.sweeps.worker import Batch, Done, execute

__all__ = ["Listener", "Summary", "run_sweep"]

Listener = Callable[[dict[str, Any]], None]
"""Called with each event, as JSON types; ``event["event"]`` is its kind (docs/reference/sweeps.md lists them)."""

_BATCH_SECONDS: Final = 0.25
_LARGEST_BATCH: Final = 512
_POLL_SECONDS: Final = 0.2
_AHEAD: Final = 2  # batches for each worker: one that runs, one that waits
_ALONE_AFTER: Final = 2  # workers that a point may lose before it has to run alone
_MOST_BREAKS: Final = 3


@dataclass(frozen=True, slots=True)
class Summary:
    """What a driver did.

    Attributes
    ----------
    points : int
        Of the sweep.
    recorded : int
        That had a result or a failure before.
    done, failed : int
        That got a result, or a failure, now.
    interrupted : bool
        Ctrl-C ended it before all points were done.
    seconds : float
        How long that took.
    skipped : int
        Combinations whose scenario cannot be, left out by ``invalid = "skip"``.
    """

    points: int
    recorded: int
    done: int
    failed: int
    interrupted: bool
    seconds: float
    skipped: int = 0

    def kept(self, out: Path) -> str:
        """Return what there is of an interrupted sweep, in words."""
        return _kept(self.recorded + self.done + self.failed, self.points, out)


def _kept(recorded: int, points: int, out: Path) -> str:
    return f"{recorded:,} of {points:,} points are kept in {printable(out)}; the same command goes on"


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    executor: Callable[[], Executor] | None = None,
    jobs: int | None = None,
    retries: int = 1,
    again: bool = False,
    lock: bool = True,
    shard: Shard | None = None,
    listener: Listener | None = None,
    work: Callable[[Batch], list[Done]] = execute,
) -> Summary:
    """Run those points of a sweep that a store lacks, and record them there.

    Parameters
    ----------
    sweep : Sweep
    out : Path
        The store; begun if it is not there.
    executor : callable, optional
        Makes an executor, again after one has broken. Without it, processes of this machine, or this process if
        `jobs` is 1.
    jobs : int, optional
        Workers; all that the executor says it has (`workers`), or all cores, if left out.
    retries : int, optional
        How often a point that failed is tried again before its failure is recorded.
    again : bool, optional
        Run points again whose failure is recorded.
    lock : bool, optional
        Refuse to write where another driver does. False is for file systems that have no locks: then it is up to the
        user that nothing else writes there.
    shard : Shard, optional
        Run only these points of the sweep.
    listener : callable, optional
        Told of everything that happens.
    work : callable, optional
        What simulates a batch; it must be picklable.

    Raises
    ------
    InputError
        The store cannot be written, another driver writes there, or a point's scenario cannot be.
    KeyboardInterrupt
        A second Ctrl-C. What was recorded is in the store.
    """
    tell = listener or _ignore
    with _tidy(Path(out)), _stoppable() as stop, Store.open(Path(out), lock=lock) as store:
        started = time.monotonic()
        planning: Callable[[int], None] = lambda points: tell(_event("planning", points=points))  # noqa: E731
        plan, missing = store.begin(sweep, again=again, progress=planning, shard=shard)
        recorded = plan.total - len(missing)
        skipped = {"skipped": plan.skipped} if plan.skipped else {}
        tell(_event("planned", points=plan.total, recorded=recorded, pending=len(missing), **skipped))
        made = 0, 0
        if len(missing):
            if executor is None:
                base = sweep.scenario.to_toml() if work is execute else ""
                jobs = _affordable(plan.largest, jobs, min(jobs or cores(), len(missing)))
                executor = Here if jobs == 1 else processes(jobs, base, str(sweep.scenario.folder))
            run = _Run(store, plan, missing, executor, jobs, retries, tell, stop, work)
            try:
                run.go()
            except KeyboardInterrupt:
                raise KeyboardInterrupt(_kept(recorded + run.made + run.failed, plan.total, Path(out))) from None
            made = run.made, run.failed
        interrupted = sum(made) < len(missing)
        if not interrupted:
            store.finish()
        seconds = time.monotonic() - started
        summary = Summary(plan.total, recorded, *made, interrupted, seconds, plan.skipped)
    tell(_event("interrupted" if interrupted else "finished", done=made[0], failed=made[1], seconds=round(seconds, 3)))
    return summary


def _affordable(needed: int, wanted: int | None, jobs: int) -> int:
    """Return how many processes to use: as many as memory has room for.

    Raises
    ------
    InputError
        More are asked for.
    """
    fits = most_jobs(needed) if jobs > 1 else None
    if fits is None or jobs <= fits[0]:
        return jobs
    if wanted is None:
        return fits[0]
    raise InputError(
        f"jobs: found {jobs}; the largest point takes about {needed / (1 << 30):,.1f} GiB of memory in each process, "
        f"and {fits[1]}. Expected at most {fits[0]}."
    )


@dataclass
class _Run:
    """The scheduling of one driver."""

    store: Store
    plan: Plan
    missing: np.ndarray[Any, np.dtype[np.intp]]
    executor: Callable[[], Executor]
    wanted: int | None
    retries: int
    tell: Listener
    stop: list[int]
    work: Callable[[Batch], list[Done]]
    made: int = 0
    failed: int = 0
    flying: dict[Future[list[Done]], list[int]] = field(default_factory=dict)
    tries: Counter[int] = field(default_factory=Counter)
    lost: Counter[int] = field(default_factory=Counter)

    def go(self) -> None:
        """Run until every point is recorded, or Ctrl-C."""
        costs = self.plan.points["cost"][self.missing]
        self.order = self.missing[np.argsort(-costs, kind="stable")]
        self.next = 0
        self.again: deque[int] = deque()
        self.alone: deque[int] = deque()
        self.spent = self.spent_cost = 0.0
        self.recent = 0.0
        self.solo: int | None = None  # the point that runs alone now
        self.breaks = 0
        self.here = self.executor is Here
        self.pool: Executor = self.executor()
        self.jobs: int = self.wanted or getattr(self.pool, "workers", 0) or cores()
        self.tell(_event("started", workers=self.jobs))
        told = False
        try:
            while self.flying or (not self.stop and self._waiting):
                self._fill()
                self._collect()
                if self.stop and not told:
                    told = True
                    self.tell(_event("interrupting", running=sum(map(len, self.flying.values()))))
        except BaseException:
            self._abandon()
            raise
        self.pool.shutdown(cancel_futures=True)

    @property
    def _waiting(self) -> bool:
        return bool(self.next < len(self.order) or self.again or self.alone)

    def _fill(self) -> None:
        if not self.flying:
            self.solo = None
        window = 0 if self.solo is not None else 1 if self.here else self.jobs * _AHEAD
        while not self.stop and self._waiting and len(self.flying) < window:
            if self.alone and not (self.again or self.next < len(self.order)):
                if self.flying:
                    return
                self.solo = self.alone.popleft()
                places, window = [self.solo], 0
            else:
                places = self._batch()
            try:
                future = self.pool.submit(self.work, self.plan.batch(places))
            except BrokenExecutor:
                (self.again if self.solo is None else self.alone).extendleft(reversed(places))  # never started
                if not self.flying:
                    self._renew()
                return
            self.flying[future] = places

    def _batch(self) -> list[int]:
        """Return the next points: so many that they take about `_BATCH_SECONDS`, fewer towards the end."""
        if self.again:
            return [self.again.popleft()]
        left = len(self.order) - self.next
        most = min(_LARGEST_BATCH, max(1, left // (2 * self.jobs)))
        places: list[int] = []
        expected = 0.0
        rate = self.spent / self.spent_cost if self.spent_cost else None
        while len(places) < most and (not places or (rate is not None and expected < _BATCH_SECONDS)):
            place = int(self.order[self.next])
            self.next += 1
            places.append(place)
            expected += max((rate or 0.0) * self.plan.points["cost"][place], self.recent / 2)
        return places

    def _collect(self) -> None:
        if self.stop:
            for future in [each for each in self.flying if each.cancel()]:
                del self.flying[future]
        finished, _ = wait(self.flying, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
        broken = False
        for future in finished:
            places = self.flying.pop(future)
            error = future.exception()
            if error is None:
                self._take(future.result())
            else:
                broken = broken or isinstance(error, BrokenExecutor)
                self._lose(places, error)
        if broken:
            self._rescue()
            self._renew()

    def _take(self, done: list[Done]) -> None:
        recorded = []
        for each in done:
            if each.failure and self.tries[each.place] < self.retries:
                self.tries[each.place] += 1
                self.again.append(each.place)
                self.tell(_event("retry", point=self.plan.identity(each.place), error=_last_line(each.failure)))
            else:
                recorded.append(each)
        if not recorded:
            return
        self.store.record(recorded)
        seconds = [each.seconds for each in recorded]
        self.spent += sum(seconds)
        self.spent_cost += float(self.plan.points["cost"][[each.place for each in recorded]].sum())
        self.recent = sum(seconds) / len(seconds)
        for each in recorded:
            place = each.place
            point = {"point": self.plan.identity(place), "replicate": int(self.plan.points["replicate"][place])}
            facts = {**point, "values": self.plan.values(place), "seconds": round(each.seconds, 6)}
            if each.failure:
                self.failed += 1
                self.tell(_event("failed", **facts, error=_last_line(each.failure)))
            else:
                self.made += 1
                self.tell(_event("done", **facts))

    def _lose(self, places: list[int], error: BaseException) -> None:
        """Try points again whose worker died; those that are there again and again run alone, and may then fail."""
        self.lost.update(places)
        self.tell(_event("lost", points=len(places), error=_told(error)))
        if places == [self.solo]:
            place = places[0]
            if self.tries[place] >= self.retries:
                text = f"The worker died {self.lost[place]} times while this point ran ({_told(error)}).\n"
                self._take([Done(place, [], text, 0.0)])
            else:
                self.tries[place] += 1
                self.alone.append(place)
            return
        for place in places:
            (self.alone if self.lost[place] >= _ALONE_AFTER else self.again).append(place)

    def _rescue(self) -> None:
        """Take what a broken executor's other futures have."""
        for future, places in list(self.flying.items()):
            del self.flying[future]
            if future.done() and not future.cancelled() and future.exception() is None:
                self._take(future.result())
            else:
                self._lose(places, BrokenExecutor("a worker died"))

    def _renew(self) -> None:
        self.breaks += 1
        if not self.made and self.breaks > _MOST_BREAKS * (1 + self.retries) + 2:
            raise InputError("Workers die whatever they are given; nothing can be run. Recorded points are kept.")
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.pool = self.executor()

    def _abandon(self) -> None:
        """Leave at once: drop what waits, and end the processes of what runs."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in list((getattr(self.pool, "_processes", None) or {}).values()):
            process.terminate()


@contextmanager
def _tidy(out: Path) -> Iterator[None]:
    """Remove a store that was begun now if nothing came of it because the sweep was refused."""
    there = os.path.lexists(out)  # whatever cannot be looked at is refused in its own words
    try:
        yield
    except InputError:
        if not there and os.path.isdir(out):
            files = [path for path in out.rglob("*") if not path.is_dir()]
            if all(path.stat().st_size == 0 or path.name.endswith("lock") for path in files):
                shutil.rmtree(out, ignore_errors=True)
        raise


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Give a list that gets an item at Ctrl-C; a second Ctrl-C is as it is elsewhere."""
    stop: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: object) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _event(event: str, **facts: Any) -> dict[str, Any]:
    return {"event": event, **facts}


def _last_line(failure: str) -> str:
    lines = failure.strip().splitlines()
    return lines[-1] if lines else ""


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _ignore(event: dict[str, Any]) -> None:
    """Tell nobody."""
