"""Does a timeline show what happened when, does noting it change no figure, and can Perfetto read it?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vmsim
from tests.oracle.perfetto_reader import read
from tests.simulation.small import scenario
from vmsim.engine.simulation import Simulation
from vmsim.observe.perfetto import Slice, lanes
from vmsim.record.log import Log
from vmsim.record.tables import TABLES, rows
from vmsim.record.timeline import Span, span_log, table_of
from vmsim.scenario import mode_names

HOST: dict[str, Any] = {"what_if": True, "memory": "8MiB", "cores": 1, "samples": "1us"}


def busy(mode: str, **host: Any) -> vmsim.Scenario:
    """Return two VMs that fault, take turns on a core and map and unmap."""
    loads = [{"kind": "churn", "footprint": "128KiB", "burst": "16KiB", "rounds": 12, "work": 40}] * 2
    made = [
        {"name": name, "memory": "2MiB", "mode": mode, "workload": load} for name, load in zip("ab", loads, strict=True)
    ]
    return scenario(*made, **{**HOST, **host})


def tables_of(wanted: vmsim.Scenario, *, timeline: bool) -> dict[str, list[dict[str, Any]]]:
    outcome = Simulation(wanted, timeline=timeline).run()
    return {name: rows(name, outcome) for name in TABLES}


@pytest.mark.parametrize("mode", mode_names())
def test_noting_what_happens_changes_no_figure(mode: str) -> None:
    wanted = busy(mode)
    assert tables_of(wanted, timeline=True) == tables_of(wanted, timeline=False)


def test_a_vcpus_waits_and_time_on_cores_are_those_of_the_tables() -> None:
    wanted = busy("ept")
    result = vmsim.run(wanted, timeline=True)
    spans = result.timeline
    assert spans is not None
    waits = result.waits.set_index(["vm", "cause"])
    for name in ("a", "b"):
        mine = spans[spans["track"] == f"{name}/vcpu 0"]
        for cause in ("pcpu_wait", "pool_wait"):
            of = mine[mine["what"] == cause]
            assert of["cycles"].sum() == waits.loc[(name, cause), "cycles"]
        # each first touch is a page fault and a violation, and their slices hold all cycles of both
        faults = Counter(mine["what"])
        assert faults["exit: page fault"] == result.summary.set_index("vm").loc[name, "guest_faults"]
    core = spans[spans["track"] == "pcpu 0"].sort_values("start_cycle")
    ends = core["start_cycle"] + core["cycles"]
    assert (core["start_cycle"].to_numpy()[1:] >= ends.to_numpy()[:-1]).all()  # one at a time
    assert ends.max() <= result.facts.end


def test_a_log_that_is_too_long_leaves_every_second_span_out_and_says_so() -> None:
    log: Log[Span] = span_log(limit=8)
    for number in range(20):
        log.append(Span(number, 1, "pcpu 0", "a"))
    table = table_of(log)
    assert table["start_cycle"].to_list() == [0, 4, 8, 12, 16]
    assert table.attrs["every"] == 4


def test_slices_of_a_track_nest_or_are_apart() -> None:
    made = lanes([Slice(0, 10, "a"), Slice(2, 5, "b"), Slice(4, 12, "c"), Slice(10, 11, "d"), Slice(12, 13, "e")])
    assert [[each.name for each in lane] for lane in made] == [["a", "b", "d", "e"], ["c"]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    vmsim.run(busy("ept"), timeline=True).save(folder / "run")
    return folder / "run"


def test_what_was_kept_is_read_again(kept: Path) -> None:
    again, first = vmsim.Result.load(kept).timeline, vmsim.run(busy("ept"), timeline=True).timeline
    assert again is not None
    assert first is not None
    assert again.equals(first)
    assert again.attrs["every"] == 1
    assert vmsim.run(busy("ept")).timeline is None


@pytest.fixture
def opened(kept: Path, tmp_path: Path, vmsim: Any) -> tuple[Any, dict[str, Any]]:
    """Give the messages of a timeline's file, and what the command told of it."""
    pb2 = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    file = tmp_path / "t.pftrace"
    told = json.loads(vmsim("timeline", kept, "--out", file, "--json").out)
    return pb2.Trace.FromString(file.read_bytes()), told


def test_a_reader_of_another_hand_finds_what_the_run_noted_and_no_error(
    kept: Path, opened: tuple[Any, dict[str, Any]]
) -> None:
    """Each slice of the table is on its track from its first to its last ns, nested; counters are what was sampled."""
    trace, told = opened
    made = read(trace)
    assert not made.errors
    assert (len(made.slices), len(made.values)) == (told["slices"], told["counts"])
    result = vmsim.Result.load(kept)
    assert result.timeline is not None

    def ns(cycle: int) -> int:
        return cycle * 10**9 // result.facts.frequency

    noted = Counter()
    for start, cycles, track, what in result.timeline[["start_cycle", "cycles", "track", "what"]].itertuples(
        index=False
    ):
        process, _, name = track.rpartition("/")
        noted[process or "host", name, what, ns(start), ns(start + cycles)] += 1
    senders = {"monitor": "monitor", "host": "host, for the monitor"}
    for vm, sender, time, cycles, kind in result.messages[["vm", "sender", "time_cycles", "cycles", "kind"]].itertuples(
        index=False
    ):
        noted[vm, senders[sender], kind, ns(time), ns(time + cycles)] += 1
    assert Counter(tuple(each[:5]) for each in made.slices) == noted
    free = result.memory.loc[result.memory["vm"] == "", ["time_cycles", "host_free"]].drop_duplicates()
    told_free = {(each.time, each.value) for each in made.values if each[:2] == ("host", "free frames")}
    assert told_free == {(ns(time), value) for time, value in free.itertuples(index=False)}


@pytest.mark.parametrize(
    ("error", "spoil"),
    [
        ("misplaced_end_event", lambda begin, end, packets: setattr(begin, "timestamp", end.timestamp + 10**9)),
        ("slice_never_ended", lambda begin, end, packets: packets.remove(end)),
        ("event_of_unknown_track", lambda begin, end, packets: setattr(begin.track_event, "track_uuid", 10**9)),
        ("event_of_another_kind_than_its_track", lambda begin, end, packets: setattr(begin.track_event, "type", 4)),
        ("track_event_tokenizer_errors", lambda begin, end, packets: setattr(begin.track_event, "name_iid", 7)),
        (
            "packet_skipped_seq_needs_incremental_state_invalid",
            lambda begin, end, packets: setattr(begin, "sequence_flags", 2),
        ),
        ("packet_without_sequence", lambda begin, end, packets: begin.ClearField("trusted_packet_sequence_id")),
        ("event_without_time", lambda begin, end, packets: begin.ClearField("timestamp")),
        ("clock_sync_failure", lambda begin, end, packets: setattr(begin, "timestamp_clock_id", 64)),
        ("flow_without_end", lambda begin, end, packets: begin.track_event.flow_ids.append(1)),
        ("track_described_twice", lambda begin, end, packets: packets.append(packets[0])),
        ("unknown_fields", lambda begin, end, packets: begin.MergeFromString(bytes([0xF8, 0xFF, 0xFF, 0x7F, 1]))),
    ],
)
def test_what_perfetto_would_not_read_is_found(
    error: str, spoil: Callable[..., Any], opened: tuple[Any, dict[str, Any]]
) -> None:
    trace, _ = opened
    packets = trace.packet
    begin = next(each for each in packets if each.track_event.type == each.track_event.TYPE_SLICE_BEGIN)
    track = begin.track_event.track_uuid
    ends = [each for each in packets if each.track_event.type == each.track_event.TYPE_SLICE_END]
    end = next(each for each in ends if each.track_event.track_uuid == track)
    spoil(begin, end, packets)
    assert read(trace).errors[error] > 0


def test_trace_processor_opens_it(kept: Path, tmp_path: Path, vmsim: Any) -> None:
    """The viewer's own reader finds no error. Its program is no part of the package: it is fetched from elsewhere."""
    processor = pytest.importorskip("perfetto.trace_processor")
    file = tmp_path / "t.pftrace"
    told = json.loads(vmsim("timeline", kept, "--out", file, "--json").out)
    try:
        opened = processor.TraceProcessor(trace=str(file))
    except Exception as error:
        pytest.skip(f"trace_processor is not to be had here: {error}")
    with opened:
        (count,) = opened.query("select count(*) as n from slice")
        (wrong,) = opened.query("select sum(value) as n from stats where severity = 'error'")
    assert (count.n, wrong.n) == (told["slices"], 0)


def test_some_of_it_can_be_chosen_and_files_are_kept(kept: Path, tmp_path: Path, vmsim: Any) -> None:
    file = tmp_path / "t.pftrace"
    whole = json.loads(vmsim("timeline", kept, "--out", file, "--json").out)
    assert vmsim("timeline", kept, "--out", file).status == 2
    some = json.loads(vmsim("timeline", kept, "--out", file, "--force", "--vm", "a", "--to", "20us", "--json").out)
    assert 0 < some["slices"] < whole["slices"]
    wrong = vmsim("timeline", kept, "--out", tmp_path / "u", "--vm", "c")
    assert (wrong.status, "no VM 'c'" in wrong.err) == (2, True)
    busy("ept").save(tmp_path / "s.toml")
    assert "--out DIR" in vmsim("run", tmp_path / "s.toml", "--timeline").err


def test_daemons_have_tracks_of_their_work() -> None:
    ksm = {"run": 1, "sleep_millisecs": 0, "pages_to_scan": 8}
    spans = vmsim.run(busy("ept", memory="16MiB", ksm=ksm), timeline=True).timeline
    assert spans is not None
    mine = spans[spans["track"] == "ksm"]
    assert {*mine["what"]} == {"runs"}
    assert (mine["cycles"] > 0).all()
