"""A run as a trace for Perfetto (ui.perfetto.dev): what happened when, on tracks.

Tracks are grouped as processes: the host with its pCPUs, daemons and free memory, and each VM with its vCPUs, what its
monitor and the host say to each other, its pool and its memory. The form is Perfetto's TracePacket with TrackEvents
(perfetto.dev/docs/reference/synthetic-track-event). Slices of one track must nest; what would not goes onto another
track of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from vmsim.base.errors import InputError
from vmsim.base.files import replacing
from vmsim.record.result import Result

__all__ = ["Slice", "Told", "lanes", "write_timeline"]

_SEQUENCE: Final = 1  # of packets, of which there is one
_HOST: Final = "host"
_EXTRA: Final = "The package perfetto is missing, which writes timelines: pip install 'vmsim[timeline]'."
_FRAMES: Final = {
    "resident": "resident pages",
    "swapped": "swapped pages",
    "balloon": "balloon pages",
    "tables": "page-table frames",
}
_PRESSURE: Final = {"some_cycles": "pressure: some (%)", "full_cycles": "pressure: full (%)"}


class Slice(NamedTuple):
    """Something on a track, from one cycle to another."""

    start: int
    end: int
    name: str
    pages: int = 0


class Told(NamedTuple):
    """What a timeline has.

    Attributes
    ----------
    tracks, slices, counts : int
        Tracks, slices on them, and values of counters.
    every : int
        Of the spans of vCPUs, pCPUs and daemons it has every so manieth; 0: none were noted.
    """

    tracks: int
    slices: int
    counts: int
    every: int


def lanes(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Put slices on as many tracks as they need: on each, two are apart or one holds the other.

    Returns
    -------
    list of list of Slice
        Each in the order of their beginnings, the longer one first.
    """
    made: list[tuple[list[Slice], list[int]]] = []
    for each in sorted(slices, key=lambda slice: (slice.start, -slice.end)):
        chosen = next((place for place in made if _fits(each, place[1])), None)
        if chosen is None:
            made.append(chosen := ([], []))
        chosen[0].append(each)
        chosen[1].append(each.end)
    return [lane for lane, _ in made]


def _fits(slice: Slice, ends: list[int]) -> bool:
    """Whether a slice that begins after all others can go onto a track on which slices are open until `ends`."""
    while ends and ends[-1] <= slice.start:
        ends.pop()
    return not ends or slice.end <= ends[-1]


def write_timeline(
    result: Result,
    path: Path,
    *,
    vms: Sequence[str] = (),
    start: int = 0,
    end: int | None = None,
    force: bool = False,
) -> Told:
    """Write a run as a trace for Perfetto; the same run gives the same bytes.

    Parameters
    ----------
    result : Result
    path : Path
    vms : sequence of str, optional
        Only these VMs, and the host.
    start, end : int, optional
        Only what lies in these cycles, partly at least.
    force : bool, optional
        Replace a file that is there.

    Raises
    ------
    InputError
        The package perfetto is missing, or the file cannot be written.
    """
    builder = _builder()
    last = result.facts.end if end is None else end
    with replacing(path, force=force) as temporary, temporary.open("wb") as file:
        trace = _Trace(builder(file), result.facts.frequency, start, last)
        chosen = [vm.name for vm in result.scenario.vms if not vms or vm.name in vms]
        spans = result.timeline
        trace.group(_HOST)
        if spans is not None:
            own = spans[~spans["track"].str.contains("/", regex=False)]
            for name, rows in own.groupby("track", sort=True):
                trace.slices(_HOST, str(name), _slices(rows))
        _counters(trace, result, "", _HOST)
        for vm in chosen:
            trace.group(vm)
            if spans is not None:
                prefix = f"{vm}/"
                mine = spans[spans["track"].str.startswith(prefix)]
                for name, rows in mine.groupby("track", sort=True):
                    trace.slices(vm, str(name).removeprefix(prefix), _slices(rows))
            _messages(trace, result, vm)
            _counters(trace, result, vm, vm)
        return Told(trace.tracks, trace.made, trace.counted, 0 if spans is None else int(spans.attrs["every"]))


def _builder() -> Callable[[BinaryIO], Any]:
    try:
        from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder
    except ImportError as error:
        raise InputError(_EXTRA) from error
    made: Callable[[BinaryIO], Any] = StreamingTraceProtoBuilder
    return made


def _slices(rows: Any) -> Iterator[Slice]:
    columns = (rows[name].to_list() for name in ("start_cycle", "cycles", "what", "pages"))
    for start, cycles, what, pages in zip(*columns, strict=True):
        yield Slice(start, start + cycles, what, pages)


def _messages(trace: _Trace, result: Result, vm: str) -> None:
    """Put messages on two tracks: what the monitor says, and what the host does."""
    table = result.messages
    for sender, name in (("monitor", "monitor"), ("host", "host, for the monitor")):
        rows = table[(table["vm"] == vm) & (table["sender"] == sender)]
        columns = (rows[column].to_list() for column in ("time_cycles", "cycles", "kind", "pages"))
        trace.slices(
            vm, name, (Slice(time, time + cycles, *rest) for time, cycles, *rest in zip(*columns, strict=True))
        )


def _counters(trace: _Trace, result: Result, vm: str, group: str) -> None:
    """Put memory, pressure and the pool on tracks of numbers."""
    memory = result.memory[result.memory["vm"] == vm]
    times = memory["time_cycles"].to_list()
    named = dict(_FRAMES) if vm else {"host_free": "free frames", **_FRAMES}
    for column, name in named.items():
        if memory[column].any():
            trace.counter(group, name, times, memory[column].to_list())
    for column, name in _PRESSURE.items():
        if memory[column].any():
            since = memory["time_cycles"].diff().fillna(memory["time_cycles"]).clip(lower=1)
            trace.counter(group, name, times, (100 * memory[column] / since).round(2).to_list())
    pool = result.pool
    if vm:
        rows = pool[(pool["vm"] == vm) & pool["event"].isin(("grant", "spare", "return"))]
        trace.counter(group, "pool pages", rows["time_cycles"].to_list(), rows["level"].to_list())
    elif not len(memory):
        trace.counter(group, "free frames", pool["time_cycles"].to_list(), pool["host_free"].to_list())


class _Trace:
    """A trace that is being written."""

    def __init__(self, builder: Any, frequency: int, start: int, end: int) -> None:
        from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent

        self._builder = builder
        self._frequency = frequency
        self._start, self._end = start, end
        self._kinds = TrackEvent
        self._groups: dict[str, int] = {}
        self.tracks = self.made = self.counted = 0

    def group(self, name: str) -> None:
        """Begin a group of tracks."""
        packet = self._packet()
        self._groups[name] = packet.track_descriptor.uuid = self._number()
        packet.track_descriptor.process.pid = len(self._groups)
        packet.track_descriptor.process.process_name = name
        self._builder.write_packet(packet)

    def slices(self, group: str, name: str, slices: Iterable[Slice]) -> None:
        """Write slices onto a track, or several of the same name."""
        shown = [each for each in slices if each.end >= self._start and each.start <= self._end]
        for lane in lanes(shown):
            track = self._track(group, name)
            pending: list[int] = []
            for each in lane:
                while pending and pending[-1] <= each.start:
                    self._event(track, pending.pop(), self._kinds.TYPE_SLICE_END)
                self._event(track, each.start, self._kinds.TYPE_SLICE_BEGIN, each.name, each.pages)
                pending.append(each.end)
                self.made += 1
            while pending:
                self._event(track, pending.pop(), self._kinds.TYPE_SLICE_END)

    def counter(self, group: str, name: str, times: Sequence[int], values: Sequence[float]) -> None:
        """Write numbers onto a track."""
        shown = [(time, value) for time, value in zip(times, values, strict=True) if self._start <= time <= self._end]
        if not shown:
            return
        track = self._track(group, name, counter=True)
        for time, value in shown:
            packet = self._packet(time)
            event = packet.track_event
            event.type, event.track_uuid = self._kinds.TYPE_COUNTER, track
            if isinstance(value, int):
                event.counter_value = value
            else:
                event.double_counter_value = value
            self._builder.write_packet(packet)
            self.counted += 1

    def _track(self, group: str, name: str, *, counter: bool = False) -> int:
        packet = self._packet()
        described = packet.track_descriptor
        described.uuid, described.parent_uuid, described.name = self._number(), self._groups[group], name
        if counter:
            described.counter.SetInParent()
        self._builder.write_packet(packet)
        self.tracks += 1
        return int(described.uuid)

    def _number(self) -> int:
        return 1 + self.tracks + len(self._groups)

    def _event(self, track: int, cycle: int, kind: int, name: str = "", pages: int = 0) -> None:
        packet = self._packet(cycle)
        packet.track_event.type, packet.track_event.track_uuid = kind, track
        if name:
            packet.track_event.name = name
        if pages:
            note = packet.track_event.debug_annotations.add()
            note.name, note.int_value = "pages", pages
        self._builder.write_packet(packet)

    def _packet(self, cycle: int | None = None) -> Any:
        packet = self._builder.create_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        if cycle is not None:
            packet.timestamp = cycle * 10**9 // self._frequency
        return packet
