"""The store of a sweep: a folder that is whole at every moment.

::

    results/part-0001-000000.parquet    rows of finished points, in the order of the plan
    failures/part-0001-000000.parquet   points that failed, with their tracebacks
    manifest.json                       the parts that count, with their digests
    timings.csv                         how long each point took: no result, and never compared
    journal                             finished points of parts that are not whole yet; gone at the end
    lock                                while a driver writes

The points that a driver finds missing are a generation. Its plan is cut into parts of `PART` points beforehand, so
that the bytes of the parts follow from the plan alone, not from who ran which point when. A part counts when the
manifest lists it; until then its points are in the journal.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.sweeps.journal import JOURNAL, Journal
from vmsim.sweeps.lock import locked
from vmsim.sweeps.manifest import MANIFEST, Listed, Manifest
from vmsim.sweeps.parts import (
    FAILURE_COLUMNS,
    FAILURES,
    PART,
    RESULTS,
    Part,
    as_columns,
    as_table,
    encoded,
    list_parts,
    result_columns,
    write_bytes,
)
from vmsim.sweeps.place import LOCK, TIMINGS, clean, prepared
from vmsim.sweeps.plan import Plan
from vmsim.sweeps.points import joined
from vmsim.sweeps.reader import View
from vmsim.sweeps.shard import Shard
from vmsim.sweeps.sweep import Sweep
from vmsim.sweeps.worker import Done

__all__ = ["Store"]

_WRITTEN: Final = -2
_SYNC_SECONDS: Final = 1.0


class Store:
    """A store that is being written to; make one with `Store.open`."""

    part: ClassVar[int] = PART

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / RESULTS
        self.failures = folder / FAILURES
        self.manifest = Manifest()
        self.finished = False
        self._listed = False
        self._journal: Journal | None = None
        self._plan: Plan | None = None
        self._timings: Any = None
        self._synced = 0.0

    @classmethod
    @contextmanager
    def open(cls, folder: Path, *, lock: bool = True) -> Iterator[Store]:
        """Open a store for writing, or begin one; leave it whole, whatever happens in the block.

        Parameters
        ----------
        folder : Path
            Where nothing was is left with nothing if nothing was recorded.
        lock : bool, optional
            Refuse other drivers; False where the file system has no locks.

        Raises
        ------
        InputError
            The folder cannot be written, holds something else, or another driver writes there.
        """
        with prepared(folder), locked(folder / LOCK, lock=lock):
            store = cls(folder)
            clean(folder)
            found = Manifest.read(folder)
            store.manifest, store._listed = found or store.manifest, found is not None
            try:
                yield store
            finally:
                store._close()
            if store.finished and found is None and not os.path.lexists(folder / MANIFEST):
                store.manifest.write(folder)

    def begin(
        self,
        sweep: Sweep,
        *,
        again: bool = False,
        progress: Callable[[int], None] = lambda _: None,
        shard: Shard | None = None,
    ) -> tuple[Plan, np.ndarray[Any, np.dtype[np.intp]]]:
        """Find out what is left to run.

        Parameters
        ----------
        sweep : Sweep
        again : bool, optional
            Run points again that failed.
        progress : callable, optional
            Called now and then with the points enumerated so far.
        shard : Shard, optional
            Only these of its points.

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
        generation = journal.generation if journal else 0
        view = self._view()
        plan = Plan.of(sweep, view.points_of_parts(besides=generation, again=again), progress, shard)
        self._settle_columns(plan, view)
        self._settle_replaced(view)
        if journal and (journal.header["plan"] != plan.digest or self._cut_short(journal)):
            self._commit_rest(journal)  # another sweep was interrupted: keep what it has
            self._drop_journal()
            journal = None
            plan = plan.without(self._view().points_of_parts(again=again))
        if len(plan):
            self._cast_parts(plan, self._view())
        if journal is None:
            generation = max((part.generation for part in list_parts(self.results)), default=0) + 1
            header = {
                "generation": generation,
                "plan": plan.digest,
                "points": len(plan),
                "part": self.part,
                "columns": result_columns(plan.columns, plan.figures),
                "facts": plan.facts,
            }
            journal = Journal(self.folder / JOURNAL, header) if len(plan) else None
        self._journal = journal
        if journal:
            self._resume(journal)
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
                self._commit_whole(number)

    def finish(self) -> None:
        """Drop the journal: every point of the plan is in a part."""
        if self._journal:
            self._drop_journal()
        self.finished = True

    def list_part(self, kind: str, part: Part, data: bytes, points: int, rows: int) -> None:
        """Write a part and take it into the manifest, which is to be written next.

        Raises
        ------
        InputError
            The folder cannot be written, or the disk is full.
        """
        write_bytes(self.folder / kind / part.name, data)
        self.manifest.parts[kind][part.name] = Listed(hashlib.sha256(data).hexdigest(), points, rows)

    def _view(self) -> View:
        there = {kind: list_parts(self.folder / kind) for kind in (RESULTS, FAILURES)}
        view = View(self.folder, there, self._journal, self.manifest)
        view.is_without_manifest = not self._listed
        return view

    def _settle_columns(self, plan: Plan, view: View) -> None:
        """Give a plan the order of the store's columns, and fractions where either has them."""
        stored = [view.read(RESULTS, part).columns for part in view.parts(RESULTS)]
        stored += [self._journal.header["columns"]] if self._journal else []
        for there in stored:
            here = result_columns(plan.columns, plan.figures)
            kinds = {name: joined(kind, here.get(name, "")) for name, kind in there.items()}
            if there.keys() != here.keys() or any("str" == kinds[name] != here[name] for name in here):
                ours, theirs = ({f"{name} ({kind})" for name, kind in each.items()} for each in (here, there))
                raise InputError(
                    f"{self.folder}: the results there have other columns: this sweep would add "
                    f"{', '.join(sorted(ours - theirs)) or 'none'} and lacks "
                    f"{', '.join(sorted(theirs - ours)) or 'none'}. Name another folder with --out."
                )
            plan.columns = {name: kinds.get(name, "int64") for name in [*there, "seed"] if name in plan.columns}

    def _settle_replaced(self, view: View) -> None:
        """Find out which parts had been replaced when a driver was stopped in the midst of it."""
        listed = self.manifest.parts[RESULTS]
        replaced = {part for part in view.parts(RESULTS) if listed[part.name].was}
        for part in replaced:
            digest = view.read(RESULTS, part).sha256
            listed[part.name] = listed[part.name]._replace(sha256=digest, was=None)
        if replaced:
            self.manifest.write(self.folder)

    def _cast_parts(self, plan: Plan, view: View) -> None:
        """Turn whole numbers of earlier parts into fractions where an axis now has those."""
        columns = result_columns(plan.columns, plan.figures)
        listed = self.manifest.parts[RESULTS]
        cast = False
        for part, path in view.parts(RESULTS).items():
            found = view.read(RESULTS, part)
            if found.columns == columns:
                continue
            cast = True
            data = encoded(as_columns(found.table(), columns), found.facts)
            digest, entry = hashlib.sha256(data).hexdigest(), listed[part.name]
            listed[part.name] = entry._replace(sha256=digest, was=entry.sha256)
            self.manifest.write(self.folder)  # until the next part, or the end, either file is the right one
            write_bytes(path, data)
            listed[part.name] = listed[part.name]._replace(was=None)
        if cast:
            self.manifest.write(self.folder)

    def _cut_short(self, journal: Journal) -> bool:
        """Whether a part of the journal's generation was written with fewer points than it is to have."""
        size, points = int(journal.header["part"]), int(journal.header["points"])
        return any(
            self._listed_points(part) < min(size, points - part.number * size)
            for part in self._view().parts(RESULTS)
            if part.generation == journal.generation
        )

    def _listed_points(self, part: Part) -> int:
        tables = [self.manifest.parts[kind].get(part.name) for kind in (RESULTS, FAILURES)]
        return sum(listed.points for listed in tables if listed)

    def _resume(self, journal: Journal) -> None:
        """Find out what a journal of this plan has, and write those of its parts that are whole."""
        header = journal.header
        self._starts = np.full(int(header["points"]), -1, np.int64)
        self._size = int(header["part"])
        parts = -(-len(self._starts) // self._size)
        for part in self._view().parts(RESULTS):
            if part.generation == journal.generation:
                self._starts[part.number * self._size : (part.number + 1) * self._size] = _WRITTEN
        for place, start in journal.scan():
            if self._starts[place] == -1:
                self._starts[place] = start
        missing = np.flatnonzero(self._starts == -1)
        self._left = np.bincount(missing // self._size, minlength=parts)
        for number in range(parts):
            if not self._left[number]:
                self._commit_whole(number)

    def _commit_whole(self, number: int) -> None:
        """Write a part all of whose points are done."""
        assert self._journal
        starts = self._starts[number * self._size : (number + 1) * self._size]
        if (starts >= 0).any():
            self._commit(self._journal, number, [int(start) for start in starts[starts >= 0]])
            starts[starts >= 0] = _WRITTEN

    def _commit_rest(self, journal: Journal) -> None:
        """Write all that a journal has and no part, whole parts or not."""
        size = int(journal.header["part"])
        written = {part.number for part in self._view().parts(RESULTS) if part.generation == journal.generation}
        rest: dict[int, dict[int, int]] = {}
        for place, start in journal.scan():
            if place // size not in written:
                rest.setdefault(place // size, {}).setdefault(place, start)
        for number in sorted(rest):
            self._commit(journal, number, [rest[number][place] for place in sorted(rest[number])])

    def _commit(self, journal: Journal, number: int, starts: list[int]) -> None:
        """Write a part with some points of the journal; it counts when the manifest has it."""
        header = journal.header
        rows, failed = [], []
        for start in starts:
            prefix, made = journal.record(start)
            if isinstance(made, str):
                failed.append([*prefix[:3], made])
            else:
                rows += [[*prefix, *row] for row in made]
        part = Part(journal.generation, number)
        facts = header["facts"] | part._asdict()
        for kind, columns, lines, points in (
            (FAILURES, FAILURE_COLUMNS, failed, len(failed)),
            (RESULTS, header["columns"], rows, len(starts) - len(failed)),
        ):
            if kind == FAILURES and not failed:
                continue
            try:
                data = encoded(as_table(columns, lines), facts | {"points": points})
            except InputError as error:
                raise InputError(f"{printable(journal.path)}: part {number}: {error}") from error
            self.list_part(kind, part, data, points, len(lines))
        self.manifest.write(self.folder)

    def _drop_journal(self) -> None:
        assert self._journal
        self._journal.close()
        self._journal = None
        try:
            (self.folder / JOURNAL).unlink()
        except OSError as error:
            name = printable(self.folder / JOURNAL)
            raise InputError(f"{name}: cannot be removed: {error.strerror or error}.") from error

    def _note(self, done: list[Done]) -> None:
        """Keep how long points took, for estimates. It is no result: a line that is lost does not matter."""
        assert self._plan
        lines = [
            f"{self._plan.identity(each.place)},{self._plan.points['cost'][each.place]:.0f},{each.seconds:.6f}\n"
            for each in done
        ]
        with suppress(OSError):  # a full disk: the journal is what tells the user
            if self._timings is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                self._timings = os.open(self.folder / TIMINGS, flags, 0o666)
            if stat.S_ISREG(os.fstat(self._timings).st_mode):
                os.write(self._timings, "".join(lines).encode())

    def _close(self) -> None:
        if self._journal:
            empty = self._journal.is_empty
            self._journal.close()
            self._journal = None
            if empty:
                with suppress(OSError):  # one that stays is empty, and read as such
                    (self.folder / JOURNAL).unlink()
        if self._timings is not None:
            os.close(self._timings)
            self._timings = None
