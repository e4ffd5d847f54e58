"""Do traces open as streams, record from real programs, convert and describe themselves, and refuse plainly?"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from click.testing import CliRunner, Result

from vmsim.cli.trace import FORMATS, command
from vmsim.errors import InputError
from vmsim.scenario import Scenario
from vmsim.simulation import simulate
from vmsim.workloads import Chunk, Event, Kind, Op, Stream, open_stream, readers
from vmsim.workloads.export import export
from vmsim.workloads.runs import PageSet, RunBuilder, cut
from vmsim.workloads.trace import bundled
from vmsim.workloads.vmtrace import Vmtrace, VmtraceWriter

LACKEY = b"""== Lackey,
 L 1000,8
 S 2000,8
 S 2008,8
I  7000,4
SYSCALL[7,1](231) exit_group( 3 ) --> [pre-success] Success(0x0)
"""

needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")


@dataclass(frozen=True)
class Trace:
    """A workload as a scenario would hold it, without the scenario."""

    path: str
    repeat: int = 1
    format: str = "auto"
    kind: str = "trace"


def opened(spec: Trace, base: Path, memory: int = 1 << 30) -> Stream:
    return open_stream(spec, folder=base, memory=memory, seed=1)


def vmsim_trace(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments])


@pytest.fixture
def lackey(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.lackey.txt"
    path.write_bytes(LACKEY)
    return path


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
        assert told["fetches"] == 0
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
        assert [(event.pid, event.argument) for event in events if event.op == Op.FORK] == [(1, 2)]
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


class TestLines:
    """Data caches see lines of 64 bytes: 0x1000 and 0x1040 are two lines of a page, 0x1000 and 0x1008 are one."""

    TWO_LINES = b"0 1000\n0 1040\n" * 50

    def scenario(self, path: Path, *, data_caches: bool) -> Scenario:
        text = (
            f'[host]\ncpu = "skylake-x"\nmemory = "64MiB"\ndata_caches = {str(data_caches).lower()}\n'
            '[[vm]]\nname = "a"\nmemory = "4MiB"\nmode = "native"\n'
            f'workload = {{kind = "trace", path = "{path}"}}\n'
        )
        return Scenario.from_toml(text, source="lines.toml")

    def misses(self, path: Path) -> int:
        """Return how many of a run's data accesses the L1 cache has not."""
        (vm,) = simulate(self.scenario(path, data_caches=True)).vms
        return int(sum(vm.data)) - int(vm.data[0])

    def test_two_lines_of_a_page_are_two(self, tmp_path: Path):
        two, one = tmp_path / "two.din", tmp_path / "one.din"
        two.write_bytes(self.TWO_LINES)
        one.write_bytes(b"0 1000\n0 1008\n" * 50)
        assert (self.misses(two), self.misses(one)) == (2, 1)

    def test_a_vmtrace_by_lines_gives_what_its_source_gives(self, tmp_path: Path):
        source, out = tmp_path / "two.din", tmp_path / "two.vmtrace"
        source.write_bytes(self.TWO_LINES)
        assert vmsim_trace("convert", source, out, "--granule", "64").exit_code == 0
        assert self.misses(out) == 2

    def test_a_trace_by_pages_is_refused(self, tmp_path: Path):
        source, out = tmp_path / "two.din", tmp_path / "two.vmtrace"
        source.write_bytes(self.TWO_LINES)
        assert vmsim_trace("convert", source, out).exit_code == 0
        for path in (out, Path("sqlite")):
            with pytest.raises(InputError, match=r"recorded by pages .*--granule 64"):
                simulate(self.scenario(path, data_caches=True))
        simulate(self.scenario(out, data_caches=False))

    @pytest.mark.filterwarnings("error")
    def test_a_table_of_pages_is_doubted_aloud(self, tmp_path: Path):
        source = tmp_path / "pages.csv"
        source.write_bytes(b"address\n0x1000\n0x5000\n")
        with pytest.raises(UserWarning, match="every address in it begins a page"):
            simulate(self.scenario(source, data_caches=True))
        with pytest.raises(UserWarning, match="every address in it begins a page"):
            export(source, tmp_path / "out.vmtrace", granule=64)


def test_a_57_bit_address_needs_a_guest_of_five_levels(tmp_path: Path) -> None:
    (tmp_path / "la57.csv").write_bytes(b"address,kind\n0x0080000000000000,W\n")
    text = (
        '[host]\ncpu = "sapphire-rapids"\nmemory = "64MiB"\n[[vm]]\nname = "a"\nmemory = "4MiB"\nmode = "native"\n'
        f'guest_levels = {{}}\nworkload = {{{{kind = "trace", path = "{tmp_path}/la57.csv"}}}}\n'
    )
    with pytest.raises(InputError, match=r"0x80_0000_0000_0000.*Expected guest_levels = 5"):
        simulate(Scenario.from_toml(text.format(4), source="a.toml"))
    (vm,) = simulate(Scenario.from_toml(text.format(5), source="a.toml")).vms
    assert vm.guest_faults == 1


class TestFiles:
    def test_convert_does_not_replace_a_file_unless_forced(self, lackey: Path, tmp_path: Path):
        out = tmp_path / "out.u64"
        out.write_bytes(b"mine")
        result = vmsim_trace("convert", lackey, out)
        assert isinstance(result.exception, InputError)
        assert "--force" in str(result.exception)
        assert out.read_bytes() == b"mine"
        assert vmsim_trace("convert", lackey, out, "--force").exit_code == 0
        assert len(out.read_bytes()) == 24

    @needs_valgrind
    def test_record_takes_another_name_or_refuses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "true.vmtrace").write_bytes(b"mine")
        result = vmsim_trace("record", "-o", "true.vmtrace", "--", "/bin/true")
        assert isinstance(result.exception, InputError)
        assert "--force" in str(result.exception)
        told = json.loads(vmsim_trace("record", "--json", "--max-accesses", "1000", "--", "/bin/true").stdout)
        assert told["output"] == "true-2.vmtrace"
        assert (tmp_path / "true.vmtrace").read_bytes() == b"mine"

    def test_a_few_runs_do_not_become_a_huge_file(self, tmp_path: Path):
        source = tmp_path / "four.csv"
        source.write_bytes(b"0x1000,r,2147483647\n0x2000,r,2147483647\n" * 2)
        result = vmsim_trace("convert", source, tmp_path / "out.u64")
        assert isinstance(result.exception, InputError)
        assert "68,719,476,704 bytes" in str(result.exception)  # 4 * (2**31 - 1) * 8
        assert [path.name for path in tmp_path.iterdir()] == ["four.csv"]

    def test_kernel_addresses_survive_csv(self, tmp_path: Path):
        source, out = tmp_path / "a.din", tmp_path / "a.csv"
        source.write_bytes(b"1 ffff800000001000\n")
        assert vmsim_trace("convert", source, out).exit_code == 0
        assert out.read_text() == "address,kind,count\n0xffff800000001000,write,1\n"
        (chunk,) = readers.read(out)
        assert chunk.address.tolist() == [-(1 << 47) + 0x1000]


class TestSaid:
    """What a trace had that is not kept is said, counted by hand."""

    def test_by_convert(self, lackey: Path, tmp_path: Path):
        told = json.loads(vmsim_trace("convert", lackey, tmp_path / "a.vmtrace", "--json").stdout)
        assert told["left_out"] == {"fetches": 1, "sizes": 3}
        told = json.loads(vmsim_trace("convert", lackey, tmp_path / "a.u64", "--json").stdout)
        assert told["left_out"] == {"fetches": 1, "sizes": 3, "operations": 1, "kinds of accesses": 2}
        result = vmsim_trace("convert", lackey, tmp_path / "b.vmtrace")
        assert "1 instruction fetches (--fetch keeps them)" in result.stderr
        assert "where in blocks of 4096 bytes" in result.stderr

    def test_by_info_of_fetches_that_a_run_leaves_out(self, lackey: Path, tmp_path: Path):
        told = json.loads(vmsim_trace("info", lackey, "--json").stdout)
        assert (told["accesses"], told["fetches"], told["replayed"]) == (4, 1, 3)
        assert opened(Trace(lackey.name), lackey.parent).accesses == 3
        assert "a run leaves them out" in " ".join(vmsim_trace("info", lackey).stdout.split())
        made = tmp_path / "made.vmtrace"
        vmsim_trace("convert", lackey, made, "--fetch")
        assert json.loads(vmsim_trace("info", made, "--json").stdout)["replayed"] == 4
        assert opened(Trace(made.name), tmp_path).accesses == 4

    def test_of_dinero_and_threads(self, tmp_path: Path):
        (tmp_path / "a.din").write_bytes(b"0 1000\n2 2000\n3 0\n4 0\n4 0\n")
        told = json.loads(vmsim_trace("info", tmp_path / "a.din", "--json").stdout)
        assert told["left_out"] == {"escapes": 1, "flushes": 2}


def test_formats_are_named_alike_everywhere() -> None:
    from vmsim.scenario.workload import Trace as Described

    choices = get_args(Described.model_fields["format"].annotation)
    assert choices == ("auto", *readers.FORMATS) == ("auto", *FORMATS)
    assert vmsim_trace("info", "sqlite", "--format", "lacky").exit_code == 2
