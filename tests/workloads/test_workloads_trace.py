"""Do traces open as streams, record from real programs, convert and describe themselves, and refuse plainly?"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from tests.workloads.samples import LACKEY, Trace, needs_valgrind, opened, vmsim_trace
from vmsim.base.errors import InputError
from vmsim.base.formats import TRACE_FORMATS
from vmsim.workloads import Chunk, Event, Kind, Op, Stream, readers
from vmsim.workloads.runs import PageSet, RunBuilder, cut
from vmsim.workloads.trace import bundled
from vmsim.workloads.vmtrace import Vmtrace, VmtraceWriter


class TestStream:
    def test_a_trace_of_any_format_opens(self, lackey: Path):
        stream = opened(Trace(lackey.name), lackey.parent)
        assert isinstance(stream, Stream)
        assert (stream.name, stream.accesses) == ("tiny", 3)
        (chunk,) = stream.chunks()
        assert chunk.address.tolist() == [0x1000, 0x2000]
        assert [region.tolist() for region in stream.footprint()] == [[0x1000], [0x2000]]
        assert stream.digest() == opened(Trace(str(lackey)), Path("elsewhere")).digest()

    def test_repeats_run_the_events_again_and_exit_once(self, lackey: Path):
        stream = opened(Trace(lackey.name, repeat=3), lackey.parent)
        chunks = list(stream.chunks())
        assert stream.accesses == 9 == sum(int(chunk.count.sum()) for chunk in chunks)
        assert [len(chunk.events) for chunk in chunks] == [0, 0, 1]
        assert chunks[-1].events[0].op == Op.EXIT

    @pytest.mark.parametrize("switch", [False, True])
    def test_children_of_a_recorded_process_exit_at_once_unless_the_trace_switches(self, switch: bool, tmp_path: Path):
        fork, exit_, there = (
            Event(1, Op.FORK, 1, 0, 0, 2),
            Event(1, Op.EXIT, 2, 0, 0, 0),
            Event(1, Op.SWITCH, 2, 0, 0, 0),
        )
        events = (fork, there, exit_) if switch else (fork,)
        runs = np.array([4096, 8192]), np.ones(2, np.int32), np.zeros(2, np.uint8)
        with (tmp_path / "forks.vmtrace").open("wb") as file:
            writer = VmtraceWriter(file, granule=4096, about={})
            writer.add(Chunk(*runs, events))
            writer.close()
        (chunk,) = opened(Trace("forks.vmtrace"), tmp_path).chunks()
        assert chunk.events == ((fork, there, exit_) if switch else (fork, exit_))

    def test_a_trace_larger_than_memory_is_refused_with_both_sizes(self, lackey: Path):
        opened(Trace(lackey.name), lackey.parent, memory=8192)
        with pytest.raises(InputError, match=r"8192 bytes .*8191 bytes"):
            opened(Trace(lackey.name), lackey.parent, memory=8191)

    @pytest.mark.parametrize("path", ["sqlite", "sqlite.vmtrace", "traces/sqlite.vmtrace"])
    def test_bundled_traces_are_found_by_name(self, path: str, tmp_path: Path):
        assert opened(Trace(path), tmp_path).name == "sqlite"

    def test_a_file_on_disk_goes_before_a_bundled_trace(self, tmp_path: Path):
        (tmp_path / "sqlite").write_bytes(LACKEY)
        assert opened(Trace("sqlite"), tmp_path).accesses == 3

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            (Trace("sqlight"), r"sqlight: no such trace.*Did you mean 'sqlite'"),
            (Trace("else/sqlite"), "no such trace"),
            (Trace("."), "found a folder"),
            (Trace("tiny.lackey.txt", repeat=0), "repeat = 0"),
            (Trace("tiny.lackey.txt", format="lacky"), "Did you mean 'lackey'"),
            (Trace("empty.u64"), "the file is empty"),
        ],
    )
    def test_what_cannot_be_opened_is_refused(self, spec: Trace, message: str, lackey: Path):
        (lackey.parent / "empty.u64").touch()
        with pytest.raises(InputError, match=message):
            opened(spec, lackey.parent)


@pytest.mark.parametrize("name", ["cc1", "python", "sort", "sqlite"])
class TestBundled:
    def test_is_small_long_and_wide(self, name: str):
        path = bundled()[name]
        totals = Vmtrace.open(path).totals
        assert path.stat().st_size <= 3_000_000
        assert Vmtrace.open(path).granule == 4096
        assert totals["accesses"] >= 10_000_000
        assert totals["pages"] > 1536  # more than the largest second-level TLB of the presets' first machines
        assert totals["events"]["map"] > 0
        assert totals["events"]["brk"] > 0

    def test_holds_what_its_footer_says(self, name: str):
        trace = Vmtrace.open(bundled()[name])
        accesses, pages, writes = 0, PageSet(), 0
        for chunk in trace.chunks():
            accesses += int(chunk.count.sum())
            writes += int(chunk.count[chunk.kind == Kind.WRITE].sum())
            pages.add(chunk.address)
        assert (accesses, writes) == (trace.totals["accesses"], trace.totals["writes"])
        assert all(np.array_equal(a, b) for a, b in zip(pages.regions(), trace.regions, strict=True))


class TestConvert:
    def test_to_vmtrace_and_out_again(self, lackey: Path, tmp_path: Path):
        made = tmp_path / "made.vmtrace"
        result = vmsim_trace("convert", lackey, made, "--fetch", "--json")
        assert result.exit_code == 0
        told = json.loads(result.stdout)
        assert (told["accesses"], told["reads"], told["writes"], told["fetches"]) == (4, 1, 2, 1)
        assert told["events"] == {"exit": 1}
        for suffix in (".csv", ".parquet"):
            out = tmp_path / f"out{suffix}"
            assert vmsim_trace("convert", made, out, "--fetch").exit_code == 0
            runs = [chunk[:3] for chunk in readers.read(out, fetch=True)]
            assert [column.tolist() for column in runs[0]] == [[0x1000, 0x2000, 0x7000], [1, 2, 1], [0, 1, 2]]

    def test_to_u64_gives_every_access(self, lackey: Path, tmp_path: Path):
        out = tmp_path / "out.u64"
        assert vmsim_trace("convert", lackey, out).exit_code == 0
        assert np.fromfile(out, "<u8").tolist() == [0x1000, 0x2000, 0x2000]

    def test_to_u64_in_bounded_memory_whatever_the_counts(self, tmp_path: Path):
        source, out = tmp_path / "long.csv", tmp_path / "long.u64"
        source.write_bytes(b"0x1000,r,2000000\n0x2000,r,1\n0x3000,r,1500000\n")
        assert vmsim_trace("convert", source, out).exit_code == 0
        words = np.fromfile(out, "<u8")
        assert [int((words == block).sum()) for block in (0x1000, 0x2000, 0x3000)] == [2_000_000, 1, 1_500_000]
        assert (np.diff(words.view(np.int64)) >= 0).all()

    def test_by_lines(self, tmp_path: Path):
        source, out = tmp_path / "a.din", tmp_path / "a.vmtrace"
        source.write_bytes(b"0 1000\n0 1038\n0 1040\n")
        assert vmsim_trace("convert", source, out, "--granule", "64").exit_code == 0
        (chunk,) = Vmtrace.open(out).chunks()
        assert chunk.address.tolist() == [0x1000, 0x1040]

    @pytest.mark.parametrize("target", ["out.vmtrace", "out.csv", "out.u64", "out.parquet", "out.txt"])
    def test_a_broken_source_leaves_nothing_behind(self, target: str, tmp_path: Path):
        source = tmp_path / "broken.din"
        source.write_bytes(b"0 1000\n" * 100_000 + b"0 zzz\n")
        result = vmsim_trace("convert", source, tmp_path / target)
        assert isinstance(result.exception, InputError)
        assert [path.name for path in tmp_path.iterdir()] == ["broken.din"]

    def test_nowhere_to_write(self, lackey: Path, tmp_path: Path):
        result = vmsim_trace("convert", lackey, tmp_path / "none" / "a.vmtrace")
        assert isinstance(result.exception, InputError)
        assert "cannot be written" in str(result.exception)

    @pytest.mark.parametrize("target", ["full.vmtrace", "full.csv", "full.u64", "full.parquet"])
    def test_a_full_disk_leaves_nothing_behind(self, target: str, lackey: Path, tmp_path: Path, monkeypatch):
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        monkeypatch.setattr(os, "link", full)
        result = vmsim_trace("convert", lackey, tmp_path / target)
        assert isinstance(result.exception, InputError)
        assert "No space left" in str(result.exception)
        assert [path.name for path in tmp_path.iterdir()] == [lackey.name]


class TestInfo:
    def test_says_the_same_of_a_trace_and_its_conversion(self, lackey: Path, tmp_path: Path):
        made = tmp_path / "made.vmtrace"
        vmsim_trace("convert", lackey, made, "--fetch")
        first, second = (json.loads(vmsim_trace("info", path, "--json").stdout) for path in (lackey, made))
        for key in ("accesses", "runs", "pages", "regions", "events", "reuse", "longest_run", "reads", "fetches"):
            assert first[key] == second[key], key
        assert first["format"] == "lackey"

    def test_reuse_counts_blocks_between_two_uses(self, tmp_path: Path):
        source = tmp_path / "reuse.din"
        pages = [0, 1, 0, 1, 2, 3, 0, *range(10, 410), 10]
        source.write_bytes("".join(f"0 {page << 12:x}\n" for page in pages).encode())
        told = json.loads(vmsim_trace("info", source, "--json").stdout)["reuse"]
        # 0 after 1, 1 after 0; 0 after 1, 2, 3; the last 10 is too far away, the other 404 are new
        assert told == [0, 2, 1, 0, 0, 0, 0, 0, 0, 405]

    def test_prints_a_table(self):
        result = vmsim_trace("info", "sqlite")
        assert result.exit_code == 0
        assert "pages touched" in result.stdout


@needs_valgrind
class TestRecord:
    def test_a_real_program(self, tmp_path: Path):
        out = tmp_path / "true.vmtrace"
        result = vmsim_trace("record", "-o", out, "--json", "--", "/bin/sh", "-c", "exit 3")
        assert result.exit_code == 0, result.exception
        told = json.loads(result.stdout)
        assert told["exit_status"] == 3
        assert told["accesses"] > 10_000
        assert 0 < told["fetches"] < told["accesses"] / 50  # the first of each page of code
        assert told["events"]["exit"] == 1
        assert {"map", "brk", "protect"} <= set(told["events"])
        trace = Vmtrace.open(out)
        assert trace.about["command"] == ["/bin/sh", "-c", "exit 3"]
        last = list(trace.chunks())[-1].events[-1]
        assert (last.op, last.pid, last.argument) == (Op.EXIT, 1, 3)

    def test_stops_at_the_limit(self, tmp_path: Path):
        out = tmp_path / "limit.vmtrace"
        result = vmsim_trace("record", "-o", out, "--max-accesses", "5000", "--json", "--", "/bin/true")
        told = json.loads(result.stdout)
        assert (told["accesses"], told["exit_status"]) == (5000, None)

    def test_children_are_left_out_but_their_fork_is_told(self, tmp_path: Path):
        out = tmp_path / "fork.vmtrace"
        result = vmsim_trace("record", "-o", out, "--json", "--", "/bin/sh", "-c", "/bin/true; exit 0")
        assert result.exit_code == 0, result.exception
        events = [event for chunk in Vmtrace.open(out).chunks() for event in chunk.events]
        made = [(event.pid, event.argument) for event in events if event.op in (Op.FORK, Op.SHARE)]  # some use vfork
        assert made == [(1, 2)]
        assert {event.pid for event in events} == {1}

    def test_an_interrupt_keeps_a_valid_trace(self, tmp_path: Path):
        out = tmp_path / "stopped.vmtrace"
        code = "from vmsim.cli.trace import command; command(prog_name='trace')"
        program = [sys.executable, "-c", code, "record", "-o", str(out), "--json", "--"]
        process = subprocess.Popen(
            [*program, "/bin/sh", "-c", "while true; do :; done"],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        temporary = out.with_name(f".{out.name}.{process.pid}.tmp")
        until = time.monotonic() + 60
        while not (temporary.exists() and temporary.stat().st_size > 5000) and time.monotonic() < until:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        told = json.loads(process.communicate(timeout=60)[0])
        assert told["interrupted"]
        assert told["accesses"] == sum(int(chunk.count.sum()) for chunk in Vmtrace.open(out).chunks()) > 0
        assert not temporary.exists()

    def test_no_such_program(self, tmp_path: Path):
        result = vmsim_trace("record", "-o", tmp_path / "a.vmtrace", "--", "no-such-program")
        assert isinstance(result.exception, InputError)
        assert not list(tmp_path.iterdir())


def test_without_valgrind_it_says_how_to_get_it(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = vmsim_trace("record", "-o", tmp_path / "a.vmtrace", "--", "true")
    assert isinstance(result.exception, InputError)
    assert "apt install valgrind" in str(result.exception)


class TestRuns:
    def test_where_accesses_are_handed_over_does_not_matter(self):
        random = np.random.default_rng(1)
        address = (random.integers(0, 3, 5000) << 12).astype(np.int64)
        count, kind = np.ones(5000, np.int32), random.integers(0, 2, 5000).astype(np.uint8)
        streams = []
        for step in (1, 7, 500):
            builder = RunBuilder(4096, chunk=100)
            chunks = []
            for first in range(0, 5000, step):
                if first in (0, 3500):
                    builder.event(Op.COMPUTE, 1, argument=first)
                piece = slice(first, first + step)
                chunks += builder.add(address[piece], count[piece], kind[piece])
            streams.append([*chunks, *builder.rest()])
        assert {len(chunk.count) for chunk in streams[0][:-1]} == {100}
        assert [event.argument for chunk in streams[0] for event in chunk.events] == [0, 3500]
        for stream in streams[1:]:
            for one, other in zip(streams[0], stream, strict=True):
                assert one.events == other.events
                assert all(np.array_equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))

    def test_a_long_run_is_parted_before_its_count_overflows(self):
        builder = RunBuilder(4096)
        most = (1 << 31) - 1
        builder.add(np.zeros(3, np.int64), np.array([most - 1, 1, 1], np.int32), np.zeros(3, np.uint8))
        (chunk,) = builder.rest()
        assert chunk.count.tolist() == [most, 1]

    def test_cut_keeps_exactly_so_many_accesses(self):
        builder = RunBuilder(4096)
        address = np.array([0, 4096, 8192], np.int64)
        builder.add(address, np.array([5, 5, 5], np.int32), np.zeros(3, np.uint8))
        (chunk,) = builder.rest()
        assert [cut(chunk, n).count.tolist() for n in (1, 5, 6, 15)] == [[1], [5], [5, 1], [5, 5, 5]]

    def test_pages_in_any_order_make_the_same_regions(self):
        pages = PageSet()
        for block in ([5, 3, 3], [4], [9, -7], [10, 3], [-6]):
            pages.add(np.array(block, np.int64) << 12)
        starts, lengths = pages.regions()
        assert (starts >> 12).tolist() == [-7, 3, 9]
        assert (lengths >> 12).tolist() == [2, 3, 2]


def test_formats_are_named_once() -> None:
    from vmsim.scenario.workload import Trace as Described

    assert get_args(Described.model_fields["format"].annotation) == ("auto", *TRACE_FORMATS)
    assert vmsim_trace("info", "sqlite", "--format", "lacky").exit_code == 2
    assert all(readers.reader(name).ENDINGS for name in TRACE_FORMATS)
    page = (Path(__file__).parents[2] / "docs" / "reference" / "traces.md").read_text()
    assert sorted(re.findall(r"^\| `([a-z0-9-]+)` \| (?:its|the name)", page, re.MULTILINE)) == sorted(TRACE_FORMATS)
