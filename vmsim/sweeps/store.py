"""The store of a sweep: a folder that is whole at every moment.

::

    results/part-0001-000000.parquet    rows of finished points, in the order of the plan
    failures/part-0001-000000.parquet   points that failed, with their tracebacks
    manifest.json                       digests of the parts; can be made again from them
    timings.csv                         how long each point took: no result, and never compared
    journal                             finished points of parts that are not whole yet; gone at the end
    lock                                while a driver writes

The points that a driver finds missing are a generation. Its plan is cut into parts of `PART` points beforehand, so
that the bytes of the parts follow from the plan, whoever ran which point when.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from vmsim.errors import InputError
from vmsim.sweeps.journal import JOURNAL, Journal
from vmsim.sweeps.lock import locked
from vmsim.sweeps.manifest import MANIFEST, write_manifest
from vmsim.sweeps.parts import (
    FAILURE_COLUMNS,
    FAILURES,
    PART,
    RESULTS,
    Part,
    as_columns,
    columns_of,
    identities_of,
    list_parts,
    read_part,
    read_schema,
    result_columns,
    write_part,
    write_table,
)
from vmsim.sweeps.plan import Identities, Plan
from vmsim.sweeps.points import joined
from vmsim.sweeps.spec import Sweep
from vmsim.sweeps.worker import Done

__all__ = ["TIMINGS", "Store", "recorded_points"]

TIMINGS, LOCK = "timings.csv", "lock"
_TEMPORARY: Final = re.compile(r"\.(part-[0-9]{4}-[0-9]{6}\.parquet|manifest\.json)\.[0-9]+\.tmp")
_WRITTEN: Final = -2
_SYNC_SECONDS: Final = 1.0


class Store:
    """A store that is being written to; make one with `Store.open`."""

    part: ClassVar[int] = PART

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / RESULTS
        self.failures = folder / FAILURES
        self._journal: Journal | None = None
        self._plan: Plan | None = None
        self._timings: Any = None
        self._synced = 0.0

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Store]:
        """Open a store for writing, or begin one; leave it whole, whatever happens in the block.

        Raises
        ------
        InputError
            The folder cannot be written, holds something else, or another driver writes there.
        """
        _prepare(folder)
        with locked(folder / LOCK):
            store = cls(folder)
            store._clean()
            try:
                yield store
            finally:
                store._close()
            write_manifest(folder)

    def begin(
        self, sweep: Sweep, *, again: bool = False, progress: Callable[[int], None] = lambda _: None
    ) -> tuple[Plan, np.ndarray[Any, np.dtype[np.intp]]]:
        """Find out what is left to run.

        Parameters
        ----------
        sweep : Sweep
        again : bool, optional
            Run points again that failed.
        progress : callable, optional
            Called now and then with the points enumerated so far.

        Returns
        -------
        plan : Plan
            The points of this generation.
        missing : intp[:]
            Those places in it that have neither a result nor a failure.

        Raises
        ------
        InputError
            A point's scenario cannot be, or the store has other columns.
        """
        self._journal = journal = Journal.opened(self.folder / JOURNAL)
        generation = int(journal.header["generation"]) if journal else 0
        plan = Plan.of(sweep, recorded_points(self.folder, besides=generation, again=again), progress)
        self._settle_columns(plan, journal)
        if journal and journal.header["plan"] != plan.digest:  # another sweep was interrupted: keep what it has
            self._resume(journal, None)
            self._commit_all()
            self._drop_journal()
            journal = None
            plan = plan.without(recorded_points(self.folder, again=again))
        self._cast_parts(plan)
        if journal is None:
            generation = max((part.generation for part in list_parts(self.results)), default=0) + 1
            header = {
                "generation": generation,
                "plan": plan.digest,
                "points": len(plan),
                "part": self.part,
                "columns": result_columns(plan.columns),
                "facts": plan.facts,
            }
            journal = Journal(self.folder / JOURNAL, header) if len(plan) else None
        if journal:
            self._resume(journal, plan)
        self._plan = plan
        return plan, np.flatnonzero(self._starts == -1) if journal else np.zeros(0, np.intp)

    def record(self, done: list[Done]) -> None:
        """Keep what came of some points: at once in the journal, and as parts where those are whole.

        Raises
        ------
        InputError
            The disk is full, for example; what was recorded before is not lost.
        """
        assert self._journal
        assert self._plan
        plan = self._plan
        new = [each for each in done if self._starts[each.place] == -1]
        records = [(each.place, [plan.prefix(each.place), each.failure or each.rows]) for each in new]
        starts = self._journal.append(records)
        for each, start in zip(new, starts, strict=True):
            self._starts[each.place] = start
            self._left[each.place // self._size] -= 1
        now = time.monotonic()
        if now - self._synced > _SYNC_SECONDS:
            self._journal.sync()
            self._synced = now
        self._note(new)
        for number in sorted({each.place // self._size for each in new}):
            if not self._left[number]:
                self._commit(number)

    def finish(self) -> None:
        """Drop the journal: every point of the plan is in a part."""
        if self._journal:
            self._commit_all()
            self._drop_journal()

    def _settle_columns(self, plan: Plan, journal: Journal | None) -> None:
        """Give a plan the order of the store's columns, and fractions where either has them."""
        stored = [columns_of(read_schema(path)) for path in list_parts(self.results).values()]
        stored += [journal.header["columns"]] if journal else []
        for there in stored:
            here = result_columns(plan.columns)
            kinds = {name: joined(kind, here.get(name, "")) for name, kind in there.items()}
            if there.keys() != here.keys() or any("str" == kinds[name] != here[name] for name in here):
                ours, theirs = ({f"{name} ({kind})" for name, kind in each.items()} for each in (here, there))
                raise InputError(
                    f"{self.folder}: the results there have other columns: this sweep would add "
                    f"{', '.join(sorted(ours - theirs)) or 'none'} and lacks "
                    f"{', '.join(sorted(theirs - ours)) or 'none'}. Name another folder with --out."
                )
            plan.columns = {name: kinds.get(name, "int64") for name in [*there, "seed"] if name in plan.columns}

    def _cast_parts(self, plan: Plan) -> None:
        """Turn whole numbers of earlier parts into fractions where an axis now has those."""
        columns = result_columns(plan.columns)
        for path in list_parts(self.results).values():
            if columns_of(read_schema(path)) != columns:
                table, facts = read_part(path)
                write_table(path, as_columns(table, columns), facts)

    def _resume(self, journal: Journal, plan: Plan | None) -> None:
        """Find out what a journal has, and which of its parts are written."""
        self._journal = journal
        header = journal.header
        self._starts = np.full(int(header["points"]), -1, np.int64)
        self._size = int(header["part"])
        parts = -(-len(self._starts) // self._size)
        for part in list_parts(self.results):
            if part.generation == header["generation"]:
                self._starts[part.number * self._size : (part.number + 1) * self._size] = _WRITTEN
        for place, start in journal.scan():
            if 0 <= place < len(self._starts) and self._starts[place] == -1:
                self._starts[place] = start
        missing = np.flatnonzero(self._starts == -1)
        self._left = np.bincount(missing // self._size, minlength=parts)
        if plan is not None:
            for number in range(parts):
                if not self._left[number]:
                    self._commit(number)

    def _commit_all(self) -> None:
        for number in range(len(self._left)):
            self._commit(number)

    def _commit(self, number: int) -> None:
        """Write a part with the points of it that are done; the results come last, and with them it counts."""
        assert self._journal
        header = self._journal.header
        starts = self._starts[number * self._size : (number + 1) * self._size]
        if not (starts >= 0).any():
            return
        rows, failed = [], []
        for start in starts[starts >= 0]:
            prefix, made = self._journal.record(int(start))
            if isinstance(made, str):
                failed.append([*prefix[:3], made])
            else:
                rows += [[*prefix, *row] for row in made]
        part = Part(int(header["generation"]), number)
        facts = {**header["facts"], **part._asdict(), "points": int((starts >= 0).sum()) - len(failed)}
        if failed:
            write_part(self.failures / part.name, FAILURE_COLUMNS, failed, facts | {"points": len(failed)})
        write_part(self.results / part.name, header["columns"], rows, facts)
        starts[starts >= 0] = _WRITTEN

    def _drop_journal(self) -> None:
        assert self._journal
        self._journal.close()
        self._journal = None
        (self.folder / JOURNAL).unlink()

    def _note(self, done: list[Done]) -> None:
        """Keep how long points took, for estimates. It is no result: a line that is lost does not matter."""
        assert self._plan
        if self._timings is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._timings = os.open(self.folder / TIMINGS, flags, 0o666)
        lines = [
            f"{self._plan.identity(each.place)},{self._plan.points['cost'][each.place]:.0f},{each.seconds:.6f}\n"
            for each in done
        ]
        with suppress(OSError):  # a full disk: the journal is what tells the user
            os.write(self._timings, "".join(lines).encode())

    def _clean(self) -> None:
        """Remove what a driver that was killed left half-written."""
        for folder in (self.folder, self.results, self.failures):
            for name in os.listdir(folder):
                if _TEMPORARY.fullmatch(name):
                    (folder / name).unlink()

    def _close(self) -> None:
        if self._journal:
            self._journal.close()
            self._journal = None
        if self._timings is not None:
            os.close(self._timings)
            self._timings = None


def recorded_points(folder: Path, *, besides: int = 0, again: bool = False) -> Identities:
    """Return the points that the parts of a store have.

    Parameters
    ----------
    folder : Path
        Of the store; it need not be there.
    besides : int, optional
        A generation that is left out.
    again : bool, optional
        Leave out points that failed.
    """
    written = list_parts(folder / RESULTS)
    paths = [path for part, path in written.items() if part.generation != besides]
    if not again:
        failed = list_parts(folder / FAILURES).items()
        paths += [path for part, path in failed if part.generation != besides and part in written]
    found = [identities_of(read_part(path, ["point"])[0]) for path in paths]
    return np.concatenate([np.zeros(0, "S32"), *found])


def _prepare(folder: Path) -> None:
    """Make the folders of a store, unless something else is there."""
    if folder.is_dir() and not (folder / RESULTS).is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: the folder is not empty and has no sweep in it; name another one with --out.")
    for name in (RESULTS, FAILURES, JOURNAL, TIMINGS, LOCK, MANIFEST):
        if (folder / name).is_symlink():
            text = "this is a link to elsewhere; a sweep writes inside its own folder only"
            raise InputError(f"{folder / name}: {text}.")
    for each in (folder, folder / RESULTS, folder / FAILURES):
        try:
            each.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{each}: cannot be made: {error.strerror}.") from error
