"""Do runs, conversions and descriptions of traces keep lines, say what they leave out, and keep other files?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.workloads.samples import Trace, needs_valgrind, opened, vmsim_trace
from vmsim.base.errors import InputError
from vmsim.engine.run import simulate
from vmsim.machine.references import Served
from vmsim.scenario import Scenario
from vmsim.workloads import readers
from vmsim.workloads.export import export
from vmsim.workloads.recorder import record
from vmsim.workloads.runs import cut
from vmsim.workloads.trace import bundled
from vmsim.workloads.vmtrace import Vmtrace, VmtraceWriter

BY_LINES = ["cc1-lines", "python-lines", "sort-lines", "sqlite-lines"]


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

    def test_the_bundled_trace_by_lines_is_named(self):
        with pytest.raises(InputError, match=r"trace of the same program by lines is \"cc1-lines\""):
            simulate(self.scenario(Path("cc1"), data_caches=True))

    def test_a_table_of_pages_is_refused_unless_its_user_says_that_these_are_lines(self, tmp_path: Path):
        source, out = tmp_path / "pages.csv", tmp_path / "out.vmtrace"
        source.write_bytes(b"address\n0x1000\n0x5000\n")
        with pytest.raises(InputError, match=r"every address in it begins a page .*convert --granule 64"):
            simulate(self.scenario(source, data_caches=True))
        simulate(self.scenario(source, data_caches=False))
        with pytest.warns(UserWarning, match="every address in it begins a page"):
            export(source, out, granule=64)
        assert self.misses(out) == 2

    def test_one_page_s_start_is_a_line_like_another(self, tmp_path: Path):
        source = tmp_path / "one.din"
        source.write_bytes(b"0 1000\n" * 50)
        assert self.misses(source) == 1


@pytest.mark.parametrize("name", BY_LINES)
class TestBundledByLines:
    def test_has_lines_beside_the_first_of_a_page(self, name: str):
        trace = Vmtrace.open(bundled()[name])
        assert trace.granule == 64
        first = next(trace.chunks())
        lines = set((first.address // 64 % 64).tolist())
        assert lines == set(range(64))

    def test_memory_serves_each_of_its_lines_once(self, name: str, tmp_path: Path):
        """A fresh host has none of a program's lines in its caches, and they are large enough to keep these few."""
        trace, path = Vmtrace.open(bundled()[name]), tmp_path / "start.vmtrace"
        start = cut(next(trace.chunks()), 20_000)._replace(events=())
        with path.open("wb") as file:
            writer = VmtraceWriter(file, granule=64, about={})
            writer.add(start)
            writer.close()
        lines, pages = (len(np.unique(start.address // size)) for size in (64, 4096))
        assert lines > 2 * pages
        (vm,) = simulate(TestLines().scenario(path, data_caches=True)).vms
        assert vm.data[Served.DRAM] == lines


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


def test_progress_says_how_much_there_is_where_that_is_known(lackey: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    export(lackey, tmp_path / "a.vmtrace", fetch=True, progress=lambda *each: told.append(each))
    export(tmp_path / "a.vmtrace", tmp_path / "a.csv", progress=lambda *each: told.append(each))
    export(tmp_path / "a.vmtrace", tmp_path / "b.vmtrace", fetch=True, progress=lambda *each: told.append(each))
    assert told == [("", 4, 0), ("", 3, 3), ("", 4, 4)]


@needs_valgrind
def test_progress_of_a_recording_goes_to_its_limit(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    record(["/bin/true"], tmp_path / "a.vmtrace", limit=5000, progress=lambda *each: told.append(each))
    assert told[-1] == ("", 5000, 5000)


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
