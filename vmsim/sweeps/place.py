"""The folder of a store: made, cleaned of what a killed driver left, and removed again if nothing came of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.sweeps.journal import JOURNAL
from vmsim.sweeps.manifest import MANIFEST
from vmsim.sweeps.parts import FAILURES, RESULTS

__all__ = ["LOCK", "TIMINGS", "clean", "prepared"]

TIMINGS: Final = "timings.csv"
LOCK: Final = "lock"
_TEMPORARY: Final = re.compile(r"\.(part-[0-9]{4}-[0-9]{6}\.parquet|manifest\.json)\.[0-9]+\.tmp", re.ASCII)


@contextmanager
def prepared(folder: Path) -> Iterator[None]:
    """Make the folders of a store, unless something else is there; remove those that were made if nothing came of it.

    Raises
    ------
    InputError
        Something else is there, a part of the store leads elsewhere, or the folders cannot be made.
    """
    made: list[Path] = []
    try:
        try:
            _check(folder)
            for each in (folder, folder / RESULTS, folder / FAILURES):
                for new in [each, *each.parents]:
                    if new.is_dir():
                        break
                    made.append(new)
                each.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            told = getattr(error, "strerror", None) or error
            if isinstance(error, InputError):
                raise
            raise InputError(f"{printable(folder)}: cannot be made: {told}.") from error
        yield
    finally:
        with suppress(OSError, ValueError):  # a folder that stays is empty, and no harm
            if not any(each.is_symlink() or not each.is_dir() for each in folder.rglob("*")):  # nothing to keep
                for each in sorted(made, key=lambda path: len(path.parts), reverse=True):
                    each.rmdir()


def clean(folder: Path) -> None:
    """Remove what a driver that was killed left half-written.

    Raises
    ------
    InputError
        The folder cannot be read or written.
    """
    try:
        for each in (folder, folder / RESULTS, folder / FAILURES):
            for name in os.listdir(each):
                if _TEMPORARY.fullmatch(name):
                    (each / name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be written: {error.strerror or error}.") from error


def _check(folder: Path) -> None:
    if folder.is_dir() and not (folder / RESULTS).is_dir() and any(folder.iterdir()):
        raise InputError(
            f"{printable(folder)}: the folder is not empty and has no sweep in it; name another one with --out."
        )
    for name in (RESULTS, FAILURES, JOURNAL, TIMINGS, LOCK, MANIFEST):
        if (folder / name).is_symlink():
            text = "this is a link to elsewhere; a sweep writes inside its own folder only"
            raise InputError(f"{printable(folder / name)}: {text}.")
