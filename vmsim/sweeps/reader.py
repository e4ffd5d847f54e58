"""What is in a store: parts that the manifest lists, checked, and the journal.

Only what the manifest lists counts. A part that it does not list is passed over if the journal is of its generation:
its driver was stopped before it could list it, and what it has is in the journal still. Any other is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.sweeps.journal import JOURNAL, Journal
from vmsim.sweeps.manifest import MANIFEST, REPAIR, Manifest
from vmsim.sweeps.parts import (
    FAILURE_COLUMNS,
    FAILURES,
    RESULTS,
    Part,
    PartFile,
    as_table,
    identities_of,
    list_parts,
    read_part_bytes,
)
from vmsim.sweeps.plan import Identities

__all__ = ["View", "check_store", "is_store", "reading"]

_MISSING = "vmsim results verify --repair {} takes it off the list, and the next sweep runs its points again."
_SET_ASIDE = "vmsim results verify --repair {} sets it aside, and the next sweep runs its points again."


def is_store(folder: Path) -> bool:
    """Return whether a folder looks like a store, whole or damaged."""
    try:
        return (folder / RESULTS).is_dir()
    except (OSError, ValueError):  # and reading it says why not
        return False


def check_store(folder: Path) -> None:
    """Make sure that a folder has a store in it.

    Raises
    ------
    InputError
        It has none, or it leads elsewhere.
    """
    try:
        found = (folder / RESULTS).is_dir()
        links = [folder / kind for kind in (RESULTS, FAILURES) if (folder / kind).is_symlink()]
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be read: {error.strerror or error}.") from error
    if not found:
        raise InputError(f"{printable(folder)}: not a folder of sweep results.")
    if links:
        raise InputError(f"{printable(links[0])}: this is a link to elsewhere; a store has its own folders.")


@contextmanager
def reading(folder: Path) -> Iterator[View]:
    """Give what is in a store; a driver may be writing to it meanwhile.

    Raises
    ------
    InputError
        The folder has no store in it, or its manifest is damaged.
    """
    check_store(folder)
    # in this order: what is in a part is in the journal until the manifest lists the part
    there = {kind: list_parts(folder / kind) for kind in (RESULTS, FAILURES)}
    journal = Journal.opened(folder / JOURNAL, reading=True)
    try:
        yield View(folder, there, journal, Manifest.read(folder))
    finally:
        if journal:
            journal.close()


class View:
    """What is in a store at one moment; `reading` gives it.

    Parameters
    ----------
    folder : Path
    there : dict of str to dict of Part to Path
        The parts in the folders results and failures.
    journal : Journal or None
    manifest : Manifest or None
    """

    def __init__(
        self, folder: Path, there: dict[str, dict[Part, Path]], journal: Journal | None, manifest: Manifest | None
    ) -> None:
        self.folder = folder
        self.journal = journal
        self.manifest = manifest or Manifest()
        self.is_without_manifest = manifest is None
        self._there = there

    def parts(self, kind: str) -> dict[Part, Path]:
        """Return the parts that count, in order.

        Parameters
        ----------
        kind : str
            RESULTS or FAILURES.
        """
        return {part: path for part, path in self._there[kind].items() if part.name in self.manifest.parts[kind]}

    def problems(self) -> Iterator[tuple[Path, str]]:
        """Yield the parts that are missing, and those that nothing vouches for, with what is wrong."""
        name = printable(self.folder)
        unlisted = f"there is no {MANIFEST}" if self.is_without_manifest else f"not in {MANIFEST}"
        unlisted += f", so nothing says that it is right. {REPAIR.format(name)}"
        for kind, listed in self.manifest.parts.items():
            there = {path.name: part for part, path in self._there[kind].items()}
            for part in sorted({*listed, *there}):
                path = self.folder / kind / part
                if part not in there:
                    yield path, f"missing, though {MANIFEST} lists it. {_MISSING.format(name)}"
                elif part not in listed and not (self.journal and self.journal.generation == there[part].generation):
                    yield path, unlisted

    def expect_whole(self) -> None:
        """Make sure that the parts are those that the manifest lists.

        Raises
        ------
        InputError
            One is missing, or not listed.
        """
        for path, problem in self.problems():
            raise InputError(f"{printable(path)}: {problem}")

    def read(self, kind: str, part: Part) -> PartFile:
        """Return a part that counts; its file is the one that the manifest lists.

        Raises
        ------
        InputError
            It is not, or cannot be read.
        """
        path = self._there[kind][part]
        data = read_part_bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        if not self._lists(kind, part, digest):
            self.manifest = Manifest.read(self.folder) or Manifest()  # a driver may just have written both anew
            data = read_part_bytes(path)
            digest = hashlib.sha256(data).hexdigest()
            if not self._lists(kind, part, digest):
                raise InputError(
                    f"{printable(path)}: damaged or exchanged: its SHA-256 is not the one that {MANIFEST} gives. "
                    f"{_SET_ASIDE.format(printable(self.folder))}"
                )
        return PartFile(path, data, part)

    def tables(self, kind: str) -> list[pa.Table]:
        """Return all rows of results, or of failures: those of the parts, then those that only the journal has.

        Raises
        ------
        InputError
            A part is damaged.
        """
        self.expect_whole()
        made = [self.read(kind, part).table() for part in self.parts(kind)]
        if self.journal:
            made.append(self._journaled(self.journal, kind))
        return made

    def points(self, *, again: bool = False) -> Identities:
        """Return the points that have a result or a failure, in a part or in the journal.

        Parameters
        ----------
        again : bool, optional
            Leave out points that failed.

        Raises
        ------
        InputError
            A part is damaged.
        """
        found = [self.points_of_parts(again=again)]
        if self.journal:
            kinds = (RESULTS,) if again else (RESULTS, FAILURES)
            found += [identities_of(self._journaled(self.journal, kind)) for kind in kinds]
        return np.concatenate(found)

    def points_of_parts(self, *, besides: int = 0, again: bool = False) -> Identities:
        """Return the points that have a result or a failure in a part; every part is checked.

        Parameters
        ----------
        besides : int, optional
            A generation that is left out.
        again : bool, optional
            Leave out points that failed.

        Raises
        ------
        InputError
            A part is damaged.
        """
        self.expect_whole()
        found = [np.zeros(0, "S32")]
        for kind in (RESULTS, FAILURES):
            for part in self.parts(kind):
                points = self.read(kind, part).points()
                if part.generation != besides and not (again and kind == FAILURES):
                    found.append(points)
        return np.concatenate(found)

    def _lists(self, kind: str, part: Part, digest: str) -> bool:
        listed = self.manifest.parts[kind].get(part.name)
        return listed is not None and digest in (listed.sha256, listed.was)

    def _journaled(self, journal: Journal, kind: str) -> pa.Table:
        """Return what the journal has and no part, in the order of the plan."""
        header = journal.header
        written = {part.number for part in self.parts(RESULTS) if part.generation == journal.generation}
        starts = {place: start for place, start in journal.scan() if place // header["part"] not in written}
        rows = []
        for place in sorted(starts):
            prefix, made = journal.record(starts[place])
            if isinstance(made, str) and kind == FAILURES:
                rows.append([*prefix[:3], made])
            elif not isinstance(made, str) and kind == RESULTS:
                rows += [[*prefix, *row] for row in made]
        try:
            table = as_table(FAILURE_COLUMNS if kind == FAILURES else header["columns"], rows)
            identities_of(table)
        except InputError as error:
            raise InputError(f"{printable(journal.path)}: damaged: {error}") from error
        return table
