"""Traces as streams, and the traces that come with vmsim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vmsim.base.errors import InputError, nearest
from vmsim.base.files import open_regular, printable, sha256
from vmsim.workloads import readers
from vmsim.workloads.apart import apart, together
from vmsim.workloads.events import problem
from vmsim.workloads.fetching import fetched, is_url
from vmsim.workloads.opening import plain_name
from vmsim.workloads.residency import most_at_once
from vmsim.workloads.runs import totals
from vmsim.workloads.stream import PAGE, WIDEST_END, Chunk, Event, Op, Regions
from vmsim.workloads.vmtrace import Vmtrace

__all__ = ["BUNDLED", "TraceStream", "bundled", "find"]

_NOTHING = np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.uint8)
_MAPPINGS = frozenset(("map", "brk"))
_LINES = "-lines"  # ends the names of the bundled traces that were recorded by cache lines
BUNDLED = Path(__file__).parent / "traces"


def bundled() -> dict[str, Path]:
    """Return the traces that come with vmsim, by name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.vmtrace"))}


def find(path: str | Path, base: Path) -> Path:
    """Return where a trace is: at `path` from the folder `base`, among the bundled ones, or fetched from a URL.

    Raises
    ------
    InputError
        It is nowhere, or cannot be fetched.
    """
    if is_url(str(path)):
        return fetched(str(path))
    there = base / path
    try:
        folder, found = there.is_dir(), there.exists()
    except (OSError, ValueError):  # a name that is too long, or none
        folder, found = False, True  # and opening it says why not
    if found and not folder:
        open_regular(there, "trace").close()
        return there
    ours = bundled()
    name = Path(path).name.removesuffix(".vmtrace")
    if name in ours and Path(path).parent in (Path(), Path("traces")):
        return ours[name]
    if folder:
        raise InputError(f"{printable(there)}: expected a trace, found a folder.")
    raise InputError(f"{printable(there)}: no such trace, on disk or bundled with vmsim. {nearest(name[:60], ours)}")


def _by_pages(path: Path, found: str, told: str) -> InputError:
    """Return why a trace cannot be replayed where the cache lines of data matter.

    `found` says how its pages show, and `told` what else can be done but to record it by lines.
    """
    by_lines = f"{path.stem}{_LINES}"
    ours = path.parent == BUNDLED and by_lines in bundled()
    lines = f'The bundled trace of the same program by lines is "{by_lines}". Or record' if ours else "Record"
    return InputError(
        f"{printable(path)}: {found}, so with host.data_caches = true all data of a page would go to one cache line. "
        f"{lines} it by lines (vmsim trace record --granule 64), {told}, or leave data_caches out."
    )


class TraceStream:
    """A trace of a real program, read from its file chunk by chunk, `repeat` times over.

    A `.vmtrace` says its totals by itself; a trace of another format is read through once to find them. Every
    repetition runs the program again in the same process: its events happen again, except that the program's own EXIT
    comes only after the last.

    A recording follows one process. A child that it forks exits at once, so that the fork has its cost and no more;
    but not in a trace that has SWITCH events, and so says itself when each process runs.

    Parameters
    ----------
    path : Path
    form : str
        A format's name, or "auto".
    repeat : int
        At least 1.
    lines : bool
        The cache lines of data matter (`host.data_caches`): blocks are of 64 bytes.
    end : int
        The first address that is not user space in the guest.
    cpus : int
        Of the guest. With one, what the recording's threads did is one stream, in the order recorded; with more, they
        are threads of the stream (`apart`).

    Raises
    ------
    InputError
        The trace cannot be read, holds no access, or was recorded by pages (or has no address that does not begin
        one) and `lines` is wanted.

    Attributes
    ----------
    name : str
        The file's name without its suffixes.
    granule : int
        Bytes of a block: 4096, or 64 where a .vmtrace was recorded so or `lines` is wanted.
    from_start : bool
        Whether it shows a program from its start: it tells of mappings (mmap, brk), as recordings do that vmsim makes.
        Others can begin anywhere, and tell nothing of what was written before.
    """

    def __init__(
        self,
        path: Path,
        form: str = "auto",
        repeat: int = 1,
        *,
        lines: bool = False,
        end: int = WIDEST_END,
        cpus: int = 1,
    ) -> None:
        if repeat < 1:
            raise InputError(f"workload trace: repeat = {repeat}: expected a number above zero.")
        self.path = path
        self.name = plain_name(path).split(".")[0] or path.name
        self.granule = 64 if lines else PAGE
        self._end = end
        self._repeat = repeat
        self._form = readers.detect(path) if form == "auto" else form
        self._vmtrace: Vmtrace | None = None
        self._switches = False
        self.from_start = False
        self._recorded = 1  # threads
        self._cpus = cpus
        if self._form == "vmtrace":
            self._vmtrace = Vmtrace.open(path)
            self.granule = self._vmtrace.granule
            if lines and self.granule == PAGE:
                raise _by_pages(
                    path,
                    f"this trace was recorded by pages (granule {PAGE})",
                    "convert the file it was made from (vmsim trace convert --granule 64)",
                )
            self._accesses, self._regions = int(self._vmtrace.totals["accesses"]), self._vmtrace.regions
            self._switches = "switch" in self._vmtrace.totals["events"]
            self.from_start = not _MAPPINGS.isdisjoint(self._vmtrace.totals["events"])
            self._recorded = self._vmtrace.totals.get("threads", 1)
        else:
            self._page_starts = True
            self._accesses, self._regions = totals(self._watched(self._read()))
            if lines and self._page_starts and self._regions[1].sum() > PAGE:
                raise _by_pages(
                    path,
                    f"every address in it begins a page of {PAGE} bytes, as in a trace that was recorded by pages",
                    "say that these are its lines (vmsim trace convert --granule 64 makes such a .vmtrace)",
                )
        if not self._accesses:
            raise InputError(f"{printable(path)}: the trace holds no access: expected at least one.")

    @property
    def threads(self) -> int:
        """Those recorded; one for a guest of one CPU."""
        return self._recorded if self._cpus > 1 else 1

    @property
    def accesses(self) -> int:
        """Accesses in all repetitions."""
        return self._accesses * self._repeat

    def footprint(self) -> Regions:
        """Return starts and lengths in bytes of the pages touched."""
        return self._regions

    def most_at_once(self) -> int:
        """Return the most bytes of pages that the trace has touched and not given back, at a time."""
        return most_at_once(self._whole())

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read a thread's part from its start, as often as it is to be repeated; the whole trace is read for it."""
        return apart(self._whole(), thread) if self.threads > 1 else together(self._whole())

    def _whole(self) -> Iterator[Chunk]:
        """Read the trace with the events that say which thread goes on, as often as it is to be repeated."""
        for turn in range(self._repeat):
            last = turn == self._repeat - 1
            if turn and self._recorded > 1:
                yield Chunk(*_NOTHING, (Event(0, Op.BARRIER, 1, 0, 0, 0),))
            for chunk in self._vmtrace.chunks() if self._vmtrace else self._read():
                for event in chunk.events:
                    if wrong := problem(event, self._end):
                        raise InputError(f"{printable(self.path)}: {wrong}.")
                yield chunk._replace(events=self._events(chunk.events, last)) if chunk.events else chunk

    def digest(self) -> str:
        """Return the SHA-256 of the file's bytes."""
        return sha256(self.path)

    def _events(self, events: tuple[Event, ...], last: bool) -> tuple[Event, ...]:
        """Return a chunk's events as they are to happen."""
        kept = [event for event in events if last or event.op != Op.EXIT or event.pid != 1]
        if not self._switches:
            kept = [each for event in kept for each in _with_exit(event)]
        return tuple(kept)

    def _read(self) -> Iterator[Chunk]:
        return readers.read(self.path, self._form, granule=self.granule)

    def _watched(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Pass chunks on; note threads, whether the trace switches, and whether all its addresses begin pages."""
        for chunk in chunks:
            self._page_starts = self._page_starts and not (chunk.address % PAGE).any()
            for event in chunk.events:
                self._switches = self._switches or event.op == Op.SWITCH
                self.from_start = self.from_start or event.op.name.lower() in _MAPPINGS
                if event.op == Op.THREAD:
                    self._recorded = max(self._recorded, event.argument + 1)
            yield chunk


def _with_exit(event: Event) -> tuple[Event, ...]:
    """Return an event and, of a fork or vfork, the child's exit."""
    if event.op not in (Op.FORK, Op.SHARE):
        return (event,)
    return event, Event(event.position, Op.EXIT, event.argument, 0, 0, 0)
