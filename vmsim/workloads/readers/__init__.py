"""Readers of traces: one module per format, by its name in `vmsim.base.formats`.

Each has `read(path, granule=, fetch=, notes=)`, `sniff(head)` and `ENDINGS`. ChampSim's records cannot be told from one
another or from noise by their bytes, and u64 has no mark at all: those go by the ends of their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from vmsim.base.errors import InputError, nearest
from vmsim.base.files import printable
from vmsim.base.formats import TRACE_FORMATS
from vmsim.workloads.events import problem
from vmsim.workloads.opening import head_of, plain_name
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.stream import PAGE, Chunk

__all__ = ["Notes", "Reader", "detect", "read", "reader"]


class Reader(Protocol):
    """What the module of a format has."""

    ENDINGS: tuple[str, ...]

    def read(
        self, path: Path, *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None
    ) -> Iterator[Chunk]:
        """Read a file; as `read` below."""
        ...

    def sniff(self, head: bytes) -> bool:
        """Return whether a file that begins with `head` looks like one of this format."""
        ...


def reader(name: str) -> Reader:
    """Return the reader of a format, one of `vmsim.base.formats.TRACE_FORMATS`."""
    return cast(Reader, import_module(f"{__name__}.{name.replace('-', '_')}"))


def detect(path: Path) -> str:
    """Return the format of a trace by its first bytes, else by its name.

    Raises
    ------
    InputError
        The file cannot be read, or neither says anything.
    """
    head = head_of(path)
    for name in TRACE_FORMATS:
        if reader(name).sniff(head):
            return name
    for name in TRACE_FORMATS:
        if plain_name(path).endswith(reader(name).ENDINGS):
            return name
    raise InputError(
        f"{printable(path)}: the format of this trace shows neither in its first bytes nor in its name: name it with "
        f"--format (in a scenario: format = …), one of {', '.join(TRACE_FORMATS)}."
    )


def read(
    path: Path, form: str = "auto", *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None
) -> Iterator[Chunk]:
    """Read a trace of any format, chunk by chunk.

    Parameters
    ----------
    path : Path
    form : str
        One of `vmsim.base.formats.TRACE_FORMATS`, or "auto".
    granule : int
        Bytes of a block, 4096 or 64. A `.vmtrace` recorded by pages cannot be read by lines.
    fetch : bool
        Keep instruction fetches.
    notes : Notes, optional
        Is told what is left out, as the chunks are read.

    Raises
    ------
    InputError
        At once if the format is unknown, otherwise where the file turns out to be broken.
    """
    if form == "auto":
        form = detect(path)
    if form not in TRACE_FORMATS:
        raise InputError(f"{printable(path)}: format = {form!r}: no such format. {nearest(form, TRACE_FORMATS)}")
    return _checked(reader(form).read(path, granule=granule, fetch=fetch, notes=notes), path)


def _checked(chunks: Iterator[Chunk], path: Path) -> Iterator[Chunk]:
    """Pass chunks on whose events can happen."""
    for chunk in chunks:
        for event in chunk.events:
            if wrong := problem(event):
                raise InputError(f"{printable(path)}: {wrong}.")
        yield chunk
