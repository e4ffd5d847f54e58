"""Readers of traces: one file per format, each with `read(path, granule=, fetch=, notes=)` and `sniff(head)`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from vmsim.base.errors import InputError, nearest
from vmsim.base.files import printable
from vmsim.workloads.events import problem
from vmsim.workloads.readers.files import head_of, plain_name
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.stream import PAGE, Chunk

__all__ = ["FORMATS", "Notes", "detect", "read"]

# Name → module here, ends of file names. ChampSim's records cannot be told from one another or from noise by their
# bytes; u64 has no mark at all: those go by the name.
FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "vmtrace": ("native", (".vmtrace",)),
    "lackey": ("lackey", (".lackey",)),
    "champsim": ("champsim", (".champsim", ".champsimtrace", ".champsim.trace")),
    "champsim-cloudsuite": ("cloudsuite", (".cloudsuite",)),
    "drmemtrace": ("drmemtrace", (".drmemtrace",)),
    "dinero": ("dinero", (".din", ".dinero")),
    "u64": ("u64", (".u64",)),
    "csv": ("csv", (".csv",)),
    "parquet": ("parquet", (".parquet",)),
}


class _Reader(Protocol):
    def read(
        self, path: Path, *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None
    ) -> Iterator[Chunk]: ...

    def sniff(self, head: bytes) -> bool: ...


def _reader(name: str) -> _Reader:
    return cast(_Reader, import_module(f"{__name__}.{FORMATS[name][0]}"))


def detect(path: Path) -> str:
    """Return the format of a trace by its first bytes, else by its name.

    Raises
    ------
    InputError
        The file cannot be read, or neither says anything.
    """
    head = head_of(path)
    for name in FORMATS:
        if _reader(name).sniff(head):
            return name
    for name, (_, suffixes) in FORMATS.items():
        if plain_name(path).endswith(suffixes):
            return name
    raise InputError(
        f"{printable(path)}: the format of this trace shows neither in its first bytes nor in its name: name it with "
        f"--format (in a scenario: format = …), one of {', '.join(FORMATS)}."
    )


def read(
    path: Path, form: str = "auto", *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None
) -> Iterator[Chunk]:
    """Read a trace of any format, chunk by chunk.

    Parameters
    ----------
    path : Path
    form : str
        One of `FORMATS`, or "auto".
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
    if form not in FORMATS:
        raise InputError(f"{printable(path)}: format = {form!r}: no such format. {nearest(form, FORMATS)}")
    return _checked(_reader(form).read(path, granule=granule, fetch=fetch, notes=notes), path)


def _checked(chunks: Iterator[Chunk], path: Path) -> Iterator[Chunk]:
    """Pass chunks on whose events can happen."""
    for chunk in chunks:
        for event in chunk.events:
            if wrong := problem(event):
                raise InputError(f"{printable(path)}: {wrong}.")
        yield chunk
