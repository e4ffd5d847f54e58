"""Does a timeline show what happened when, does noting it change no figure, and can Perfetto read it?"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import vmsim
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


def test_the_file_is_what_perfetto_defines(kept: Path, tmp_path: Path, vmsim: Any) -> None:
    """Every event is on a track that was described, begins and ends match, and times on a track never go back."""
    pb2 = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    file = tmp_path / "t.pftrace"
    told = json.loads(vmsim("timeline", kept, "--out", file, "--json").out)
    trace = pb2.Trace.FromString(file.read_bytes())
    changes = {pb2.TrackEvent.TYPE_SLICE_BEGIN: 1, pb2.TrackEvent.TYPE_SLICE_END: -1}
    names, parents, depth, last, slices, values = {}, {}, Counter(), {}, 0, 0
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            described = packet.track_descriptor
            assert described.uuid not in names
            names[described.uuid] = described.process.process_name or described.name
            parents[described.uuid] = described.parent_uuid
            assert described.HasField("process") or described.parent_uuid in names
            continue
        event = packet.track_event
        assert event.track_uuid in names
        assert packet.timestamp >= last.get(event.track_uuid, 0)
        last[event.track_uuid] = packet.timestamp
        depth[event.track_uuid] += changes.get(event.type, 0)
        assert depth[event.track_uuid] >= 0
        slices += event.type == pb2.TrackEvent.TYPE_SLICE_BEGIN
        values += event.type == pb2.TrackEvent.TYPE_COUNTER
    assert not any(depth.values())
    assert (slices, values) == (told["slices"], told["counts"])
    groups = {names[uuid]: names.get(parent, "") for uuid, parent in parents.items()}
    assert {"host", "a", "b"} <= {*groups}
    assert {"pcpu 0", "vcpu 0", "monitor", "pool pages", "free frames"} <= {*groups}


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
