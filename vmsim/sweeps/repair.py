"""Is a store what it was when it was written, and what can be saved if it is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.sweeps.journal import JOURNAL, Journal
from vmsim.sweeps.manifest import MANIFEST, Listed, Manifest
from vmsim.sweeps.parts import FAILURES, RESULTS, Part, PartFile, list_parts, read_part_bytes
from vmsim.sweeps.reader import View, check_store
from vmsim.sweeps.store import Store

__all__ = ["repair", "verify"]

_ASIDE: Final = "_{}.damaged"  # readers of Parquet pass over what begins with an underscore


def verify(folder: Path, *, repair: bool = False) -> list[str]:
    """Return what is wrong with a store, in sentences; none if it is whole.

    Every part is read to its end and compared with the manifest. A point may be in one part only.

    Parameters
    ----------
    folder : Path
    repair : bool, optional
        First do what `vmsim.sweeps.repair.repair` does.

    Raises
    ------
    InputError
        The folder has no sweep in it.
    """
    check_store(folder)
    if repair:
        _repair(folder)
    there = {kind: list_parts(folder / kind) for kind in (RESULTS, FAILURES)}
    problems = []
    journal = None
    try:
        journal = Journal.opened(folder / JOURNAL, reading=True)
        if journal is None and os.path.lexists(folder / JOURNAL):
            problems.append(f"{printable(folder / JOURNAL)}: damaged; the next sweep begins it anew.")
        view = View(folder, there, journal, Manifest.read(folder))
        problems += [f"{printable(path)}: {problem}" for path, problem in view.problems()]
        problems += _damaged(view)
        if not problems and view.is_without_manifest and journal is None:
            problems.append(
                f"{printable(folder / MANIFEST)}: missing; vmsim results verify --repair {folder} makes it."
            )
    except InputError as error:
        problems.append(str(error))
    finally:
        if journal:
            journal.close()
    return problems


def repair(folder: Path, *, lock: bool = True) -> list[str]:
    """Save what can be saved of a store; return what was done, in sentences.

    A part that is not the one that the manifest lists is set aside under another name, and the next sweep runs its
    points again: nothing that was damaged or exchanged becomes right. A part that no manifest lists is taken into it
    if it is whole in itself: the checksums of its pages, its place, its columns, and no point that another part has.

    Parameters
    ----------
    folder : Path
    lock : bool, optional
        As of `Store.open`.

    Raises
    ------
    InputError
        The folder has no sweep in it, cannot be written, or a driver writes there.
    """
    check_store(folder)
    done: list[str] = []
    try:
        Manifest.read(folder)
    except InputError as error:
        done += [str(error), _set_aside(folder / MANIFEST)]
    with Store.open(folder, lock=lock) as store:
        before = store.manifest.to_json()
        done += _settled(store)
        if store.manifest.to_json() != before or not os.path.lexists(folder / MANIFEST):
            store.manifest.write(folder)
    return done


_repair = repair


def _settled(store: Store) -> Iterator[str]:
    """Set aside what is damaged, and list what nothing lists."""
    folder, manifest = store.folder, store.manifest
    journal = Journal.opened(folder / JOURNAL, reading=True)
    generation = journal.generation if journal else 0
    if journal:
        journal.close()
    there = {kind: list_parts(folder / kind) for kind in (RESULTS, FAILURES)}
    view = View(folder, there, None, manifest)
    lost: set[Part] = set()
    for kind in (RESULTS, FAILURES):
        for name in [
            name for name in manifest.parts[kind] if not any(path.name == name for path in there[kind].values())
        ]:
            del manifest.parts[kind][name]
            yield f"{printable(folder / kind / name)}: missing, taken off the list."
        for part in view.parts(kind):
            try:
                view.read(kind, part).points()
            except InputError as error:
                lost.add(part)
                yield f"{error}"
    for part in sorted(lost):
        for kind in (RESULTS, FAILURES):
            manifest.parts[kind].pop(part.name, None)
            if part in there[kind]:
                yield _set_aside(there[kind].pop(part))
    seen = {bytes(point) for part in view.parts(RESULTS) for point in view.read(RESULTS, part).points()}
    columns = next((view.read(RESULTS, part).columns for part in view.parts(RESULTS)), None)
    for kind in (RESULTS, FAILURES):
        for part, path in there[kind].items():
            if part.name in manifest.parts[kind] or part.generation == generation:
                continue
            try:
                data = read_part_bytes(path)
                found = PartFile(path, data, part)
                points = found.points()
                table = found.table()
                wrong = kind == RESULTS and (
                    found.columns != (columns or found.columns)
                    or len(points) != found.facts["points"]
                    or not seen.isdisjoint(map(bytes, points))
                )
            except InputError:
                wrong = True
            if wrong:
                yield _set_aside(path)
                continue
            manifest.parts[kind][part.name] = Listed(found.sha256, found.facts["points"], table.num_rows)
            if kind == RESULTS:
                columns = columns or found.columns
                seen |= {bytes(point) for point in points}
            yield f"{printable(path)}: whole in itself, taken into {MANIFEST}."


def _set_aside(path: Path) -> str:
    target = path.with_name(_ASIDE.format(path.name))
    try:
        path.replace(target)
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be set aside: {error.strerror or error}.") from error
    return f"{printable(path)}: set aside as {target.name}."


def _damaged(view: View) -> Iterator[str]:
    """Yield what is wrong with parts that the manifest lists."""
    seen: set[bytes] = set()
    columns: dict[str, str] = {}
    for kind in (RESULTS, FAILURES):
        for part, path in view.parts(kind).items():
            try:
                found = view.read(kind, part)
                points = found.points()
                found.table()
            except InputError as error:
                yield str(error)
                continue
            if kind == FAILURES:
                continue
            columns = columns or found.columns
            if found.columns != columns:
                yield f"{printable(path)}: has other columns than the first part."
            if len(points) != found.facts["points"]:
                yield f"{printable(path)}: has {len(points)} points, expected {found.facts['points']}."
            for point in map(bytes, points):
                if point in seen:
                    yield f"{printable(path)}: the point {point.ljust(32, bytes(1)).hex()} is in another part too."
            seen |= {*map(bytes, points)}
