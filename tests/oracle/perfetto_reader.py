"""A reader of Perfetto's traces that does what trace_processor's import does, and says what that would count as errors.

Written from Perfetto's documentation of TrackEvent and of synthetic traces, not from the writer. Messages are decoded
by the descriptors that the package perfetto brings. What trace_processor counts in its table `stats` is named by the
same names.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

CLEARED, NEEDED = 1, 2  # TracePacket.SequenceFlags


class Made(NamedTuple):
    """A slice of a track: names of the process and of the track, its own, and times in ns."""

    process: str
    track: str
    name: str
    start: int
    end: int
    depth: int


class Value(NamedTuple):
    process: str
    track: str
    time: int
    value: float


class Read(NamedTuple):
    slices: list[Made]
    values: list[Value]
    errors: Counter[str]


class Reader:
    """Reads packets one after the other: descriptors and interned names at once, events in the order of their times."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self._tracks: dict[int, Any] = {}
        self._pids: set[int] = set()
        self._valid: set[int] = set()  # sequences whose incremental state has begun
        self._names: dict[tuple[int, int], str] = {}
        self._events: list[tuple[int, Any, str]] = []

    def read(self, trace: Any) -> Read:
        """Return slices, values of counters, and errors by name."""
        self._unknown(trace)
        for packet in trace.packet:
            self._packet(packet)
        for uuid, described in self._tracks.items():
            parent = described.parent_uuid
            if parent and parent not in self._tracks:
                self.errors["track_hierarchy_missing_uuid"] += 1
            if parent == uuid:
                self.errors["track_hierarchy_loop"] += 1
        self._events.sort(key=lambda event: event[0])  # stable, as trace_processor's
        return Read(*self._replay(), self.errors)

    def _unknown(self, message: Any) -> None:
        """Count fields that no descriptor has, in a message and all within it."""
        from google.protobuf.unknown_fields import UnknownFieldSet  # comes with perfetto, which is an extra

        self.errors["unknown_fields"] += len(UnknownFieldSet(message))
        for field, value in message.ListFields():
            if field.message_type is not None:
                for each in value if hasattr(value, "append") or hasattr(value, "add") else [value]:
                    self._unknown(each)

    def _packet(self, packet: Any) -> None:
        sequence = packet.trusted_packet_sequence_id
        if not sequence:
            self.errors["packet_without_sequence"] += 1
        if packet.sequence_flags & CLEARED or packet.incremental_state_cleared:
            self._valid.add(sequence)
            self._names = {key: name for key, name in self._names.items() if key[0] != sequence}
        elif packet.sequence_flags & NEEDED and sequence not in self._valid:
            self.errors["packet_skipped_seq_needs_incremental_state_invalid"] += 1
            return
        for each in packet.interned_data.event_names:
            self._names[sequence, each.iid] = each.name
        if packet.HasField("track_descriptor"):
            self._describe(packet.track_descriptor)
        if packet.HasField("track_event"):
            self._event(packet, sequence)

    def _describe(self, described: Any) -> None:
        if not described.uuid:
            self.errors["track_descriptor_without_uuid"] += 1
        if described.uuid in self._tracks:
            self.errors["track_described_twice"] += 1
        self._tracks[described.uuid] = described
        if described.HasField("process"):
            if described.process.pid in self._pids:
                self.errors["process_described_twice"] += 1
            self._pids.add(described.process.pid)

    def _event(self, packet: Any, sequence: int) -> None:
        event = packet.track_event
        if not packet.HasField("timestamp"):
            self.errors["event_without_time"] += 1
        if packet.timestamp_clock_id:
            self.errors["clock_sync_failure"] += 1  # no snapshot relates another clock to the trace's
        if event.track_uuid not in self._tracks:
            self.errors["event_of_unknown_track"] += 1
            return
        name = event.name
        if event.name_iid:
            if (sequence, event.name_iid) not in self._names:
                self.errors["track_event_tokenizer_errors"] += 1
            name = self._names.get((sequence, event.name_iid), "")
        if event.flow_ids or event.terminating_flow_ids:
            self.errors["flow_without_end"] += len(event.flow_ids) - len(event.terminating_flow_ids)
        self._events.append((packet.timestamp, event, name))

    def _place(self, uuid: int) -> tuple[str, str]:
        """Return the process that a track is below, and its own name."""
        described, seen = self._tracks[uuid], {uuid}
        name = described.name
        while not described.HasField("process") and described.parent_uuid in self._tracks.keys() - seen:
            seen.add(described.parent_uuid)
            described = self._tracks[described.parent_uuid]
        return described.process.process_name, name

    def _replay(self) -> tuple[list[Made], list[Value]]:
        slices: list[Made] = []
        values: list[Value] = []
        open_: dict[int, list[tuple[str, int]]] = {}
        for time, event, name in self._events:
            uuid = event.track_uuid
            process, track = self._place(uuid)
            counts = self._tracks[uuid].HasField("counter")
            stack = open_.setdefault(uuid, [])
            if counts != (event.type == event.TYPE_COUNTER):
                self.errors["event_of_another_kind_than_its_track"] += 1
            elif event.type == event.TYPE_COUNTER:
                which = event.WhichOneof("counter_value_field")
                value = float(getattr(event, which)) if which else math.nan
                if not math.isfinite(value):
                    self.errors["counter_without_value"] += 1
                values.append(Value(process, track, time, value))
            elif event.type == event.TYPE_SLICE_BEGIN:
                if not name:
                    self.errors["slice_without_name"] += 1
                stack.append((name, time))
            elif event.type == event.TYPE_SLICE_END:
                if not stack:
                    self.errors["misplaced_end_event"] += 1
                    continue
                began, start = stack.pop()
                if time < start:
                    self.errors["slice_negative_duration"] += 1
                slices.append(Made(process, track, began, start, time, len(stack)))
            else:
                self.errors["event_without_type"] += 1
        self.errors["slice_never_ended"] += sum(map(len, open_.values()))
        return slices, values


def read(trace: Any) -> Read:
    """Read a whole trace; `errors` has counts above 0 only."""
    made = Reader().read(trace)
    return Read(made.slices, made.values, +made.errors)
