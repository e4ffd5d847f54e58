"""Do the readers find exactly the accesses that a file holds, and say what is wrong with any other file?"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workloads.samples import SAMPLE, TEXT, Access, as_champsim, as_lackey, expected, found
from vmsim.base.errors import InputError
from vmsim.base.formats import TRACE_FORMATS
from vmsim.workloads import Chunk, Event, Kind, Op, readers

TOP = (1 << 64) - (1 << 56)
addresses = st.one_of(st.integers(0, 5 * 4096), st.integers(0, (1 << 56) - 1), st.integers(TOP, (1 << 64) - 1))
kinds = st.sampled_from(Kind)
accesses = st.lists(st.tuples(addresses, kinds), min_size=1, max_size=60)


def going_on(those: list[Access]) -> list[Access]:
    """Leave out fetches of the instruction before: with accesses between, they are a string's next element."""
    last, kept = None, []
    for address, kind in those:
        if kind != Kind.FETCH or address != last:
            kept.append((address, kind))
        if kind == Kind.FETCH:
            last = address
    return kept


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers")


def events(path: Path, form: str = "auto") -> list[tuple[int, Event]]:
    """Return events with their positions counted in accesses."""
    told: list[tuple[int, Event]] = []
    before = 0
    for chunk in readers.read(path, form):
        ends = np.concatenate(([0], np.cumsum(chunk.count)))
        told += [(before + int(ends[event.position]), event) for event in chunk.events]
        before += int(ends[-1])
    return told


@pytest.mark.parametrize("form", TEXT)
@given(those=accesses.map(going_on), granule=st.sampled_from([4096, 64]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_formats_hold_what_was_written(form: str, those: list[Access], granule: int, folder: Path):
    path = folder / form
    path.write_bytes(TEXT[form](those))
    assert readers.detect(path) == form
    assert found(path, granule=granule) == expected(those, granule)


@given(those=accesses)
@settings(max_examples=40, deadline=None)
def test_raw_addresses_hold_what_was_written(those: list[Access], folder: Path):
    path = folder / "a.u64"
    path.write_bytes(np.array([address for address, _ in those], "<u8").tobytes())
    assert found(path) == expected([(address, Kind.READ) for address, _ in those])


@pytest.mark.parametrize(("form", "places", "size"), [("champsim", (2, 0), 64), ("champsim-cloudsuite", (4, 8), 96)])
@given(those=accesses)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_champsim_holds_what_was_written(form: str, places: tuple, size: int, those: list[Access], folder: Path):
    those = [(address, kind) for address, kind in those if kind != Kind.FETCH and address] or [(4096, Kind.READ)]
    data = as_champsim(those, places)
    assert len(data) == size * len(those)
    path = folder / "champsim.bin"
    path.write_bytes(data)
    fetch = (0x401000, Kind.FETCH)
    assert found(path, form) == expected([access for each in those for access in (fetch, each)])
    assert [run for chunk in readers.read(path, form) for run in chunk.kind] == [run[1] for run in expected(those)]


@given(those=accesses, words=st.booleans(), unsigned=st.booleans())
@settings(max_examples=40, deadline=None)
def test_parquet_holds_what_was_written(those: list[Access], words: bool, unsigned: bool, folder: Path):
    path = folder / "table.bin"
    address = np.array([address for address, _ in those], np.uint64)
    kind = [kind.name.lower() if words else int(kind) for _, kind in those]
    pq.write_table(pa.table({"VA": address if unsigned else address.view(np.int64), "type": kind}), path)
    assert readers.detect(path) == "parquet"
    assert found(path) == expected(those)


@pytest.mark.parametrize("form", TRACE_FORMATS)
@given(junk=st.binary(max_size=400))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_refused_or_a_valid_stream(form: str, junk: bytes, folder: Path):
    path = folder / f"junk-{form}"
    path.write_bytes(junk)
    refused_or_valid(path, form)


@pytest.mark.parametrize("form", [*TEXT, "parquet"])
@given(at=st.integers(0, 1 << 20), new=st.binary(max_size=3))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_refused_or_a_valid_stream(form: str, at: int, new: bytes, folder: Path):
    path = folder / f"damaged-{form}"
    if form == "parquet":
        address, kind = zip(*SAMPLE, strict=True)
        pq.write_table(pa.table({"address": address, "kind": [int(each) for each in kind]}), path)
        data = path.read_bytes()
    else:
        data = TEXT[form](SAMPLE)
    at %= len(data)
    path.write_bytes(data[:at] + new + data[at + 1 :])
    refused_or_valid(path, form)


def refused_or_valid(path: Path, form: str) -> None:
    chunks: list[Chunk] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            chunks.extend(readers.read(path, form, fetch=True))
        except InputError as error:
            assert path.name in str(error)  # noqa: PT017 (either outcome is right)
    for chunk in chunks:
        assert (np.abs(chunk.address + 1) <= 1 << 56).all()
        assert (chunk.address % 4096 == 0).all()
        assert (chunk.count >= 1).all()
        assert (chunk.kind <= 2).all()
        assert all(0 <= event.position <= len(chunk.count) for event in chunk.events)


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        ("lackey", b" L 1000,8\n L 100000000000000,8\n", "line 2: .*canonical"),
        ("lackey", b" L ffffffffffffff,8\n", "line 1: .*canonical"),
        ("lackey", b" L 1000,0\n", "size from 1"),
        ("lackey", b" L 10000000000000000,1\n", "line 1"),
        ("lackey", b" L xyz,8\n", "line 1"),
        ("lackey", b" X 1000,8\n", "line 1: ' X 1000,8': expected an access"),
        (
            "lackey",
            b"SYSCALL[1,1](9) sys_mmap ( 0x0, 18446744073709551615, 3 ) --> [pre-success] Success(0x1000)\n",
            "MAP",
        ),
        ("dinero", b"0 1000\n5 1000\n", "line 2: .*label from 0 to 4"),
        ("dinero", b"0 100000000000000\n", "line 1: address 0x100000000000000"),
        ("drmemtrace", b"1 0: W0.T1 read 8 byte(s) @ 0x1000\n2 0: W0.T1 read many\n", "line 2"),
        ("drmemtrace", b"hello\n", "line 1: 'hello': .*view tool"),
        ("csv", b"page,kind\n", "line 1: columns 'page, kind': expected one named address"),
        ("csv", b"address,kind\n0x1000,x\n", "line 2: kind 'x'"),
        ("csv", b"address,kind\n0x1000\n", "line 2: .*2 cells"),
        ("csv", b"address,count\n1,0\n", "line 2: count = 0"),
        ("csv", b"address,count\n1,2147483648\n", "line 2: count = 2147483648: expected 1 to"),
        ("csv", b"address\n-5\n", "line 2: address '-5'"),
        ("csv", b"address\n0x1000\n\n0x20g\n", "line 4: address '0x20g'"),
        ("csv", b'address,kind\n"0x10\n00",R\n', r"line 2: address '0x10.n00'"),
        ("csv", b'a,address\n"x\ny",1\nz,q\n', "line 4: address 'q'"),
        ("csv", b'a,address\n1,1\n"x,1\n2,2\n', "line 3: a quote is opened and not closed"),
        ("csv", b"address,kind\n0x1000,R,5\n", "line 2: expected 2 cells as in the first line, found 3"),
        ("csv", b"a,address\n1,1\n\xff,2,\xfe\n", "line 3: expected 2 cells"),
        ("csv", b"address,kind\n1,\xff\n", "not rows of"),
        ("csv", b"address,address\n1,2\n", "columns 'address', 'address': each may be the address"),
        ("csv", b"address,rw,type\n1,r,w\n", "columns 'rw', 'type': each may be the kind"),
        ("csv", b"0,0x1000,R\n1,0x2000,W\n", "looks like an index"),
        ("csv", b"address;kind\n1;r\n", "line 1: 'address;kind': the cells are separated by semicolons"),
        ("csv", b"address\tkind\n1\tr\n", "the cells are separated by tabs: expected commas"),
        ("csv", b"address\r4096\r8192\r", "line 1: a carriage return within a line: expected lines that end with"),
        ("csv", b"address,size\n1,70000\n", "line 2: size = 70000: expected 1 to 65536"),
        ("csv", b"address\n18446744073709551616\n", "line 2: address 18446744073709551616: expected at most"),
        ("u64", b"\0" * 12, "record 1 is cut short: expected 8 bytes, found 4"),
        ("u64", b"\0" * 8 + b"\xff" * 7 + b"\x7f", "record 1: address 0x7fffffffffffffff"),
        ("champsim", b"\0" * 65, "record 1 is cut short: expected 64 bytes, found 1"),
        ("champsim-cloudsuite", b"\0" * 64, "record 0 is cut short: expected 96 bytes"),
        ("parquet", b"PAR1 no more", "not a readable Parquet file"),
        ("champsin", b"x", "Did you mean 'champsim'"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*choose --format")
def test_what_is_wrong_is_said_with_its_place(form: str, text: bytes, message: str, folder: Path):
    path = folder / "wrong"
    path.write_bytes(text)
    with pytest.raises(InputError, match=rf"wrong: .*{message}|wrong: {message}"):
        found(path, form)


def test_the_wrong_champsim_layout_is_suspected_aloud(folder: Path):
    path = folder / "layout"
    record = struct.pack("<QBB14s4Q4Q8s", 0x401000, 1, 1, b"", 0x7F00, 0, 0, 0, 0x6000, 0, 0, 0, b"")
    path.write_bytes(record * 64)
    with pytest.warns(UserWarning, match="champsim-cloudsuite"):
        found(path, "champsim")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(found(path, "champsim-cloudsuite")) == 64 * 3


def test_the_wrong_champsim_layout_is_suspected_where_every_field_could_be_right(folder: Path):
    """Every instruction loads one word, so that read with the other size each record has an address where ip is."""
    instructions = b"".join(
        struct.pack("<QBB6s2Q4Q", 0x401000 + 4 * n, n % 2, 0, b"", 0, 0, 0x10_0000_0000 + 0x100_0000 * n, 0, 0, 0)
        for n in range(96)
    )
    path = folder / "plausible"
    path.write_bytes(instructions)
    with pytest.warns(UserWarning, match="champsim"):
        found(path, "champsim-cloudsuite")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(found(path, "champsim")) == 96 * 2


def test_an_unknown_format_lists_those_there_are(folder: Path):
    path = folder / "unknown.bin"
    path.write_bytes(b"\x00\x01\x02")
    with pytest.raises(InputError, match=r"--format.*lackey.*champsim"):
        readers.detect(path)


class TestLackey:
    def test_an_access_over_a_page_end_is_one_to_each_page(self, folder: Path):
        path = folder / "straddle"
        path.write_bytes(b" S 1ffe,4\n M 2ffc,8\n L 1000,4096\n L 1001,4096\n")
        write, read = int(Kind.WRITE), int(Kind.READ)
        assert found(path, "lackey") == [
            (0x1000, write, 1),
            (0x2000, write, 3),
            (0x3000, write, 2),
            (0x1000, read, 2),
            (0x2000, read, 1),
        ]

    def test_a_large_access_takes_all_its_lines(self, folder: Path):
        path = folder / "large"
        path.write_bytes(b" L 1010,200\n")
        assert [run[0] for run in found(path, "lackey", granule=64)] == [0x1000, 0x1040, 0x1080, 0x10C0]

    def test_system_calls_stand_between_the_accesses(self, folder: Path):
        path = folder / "calls"
        path.write_bytes(
            b"==7== Lackey, an example Valgrind tool\n"
            b" L 1000,8\n"
            b"SYSCALL[7,1](12) sys_brk ( 0x0 ) --> [pre-success] Success(0x4035000) \n"
            b"SYSCALL[7,1](9) sys_mmap ( 0x0, 5000, 3, 34, 4294967295, 0 ) --> [pre-success] Success(0x4835000) \n"
            b" L 1000,8\n"
            b"SYSCALL[7,1](10) sys_mprotect ( 0x4835000, 4096, 1 )[sync] --> Success(0x0) \n"
            b"SYSCALL[7,1](12) sys_brk ( 0x4056000 ) --> [pre-success] Success(0x4056000) \n"
            b"SYSCALL[7,1](12) sys_brk ( 0x0 ) --> [pre-success] Success(0x4056000) \n"
            b"SYSCALL[7,1](9) sys_mmap ( 0x0, 4096, 3, 34, 4294967295, 0 ) --> [pre-fail] Failure(0xc) \n"
            b"SYSCALL[7,1](0) sys_read ( 4, 0x1ffeffee28, 832 ) --> [async] ... \n"
            b"SYSCALL[7,1](0) ... [async] --> Success(0x340) \n"
            b"SYSCALL[7,1](25) sys_mremap ( 0x4835000, 8192, 16384, 0x1, 0x0 ) --> [pre-success] Success(0x5000000) \n"
            b"SYSCALL[7,1](25) sys_mremap ( 0x5000000, 16384, 4096, 0x1, 0x0 ) --> [pre-success] Success(0x5000000) \n"
            b"SYSCALL[7,1](11) sys_munmap ( 0x5000000, 4000 )[sync] --> Success(0x0) L 00002000,8\n"
            b"SYSCALL[7,1](56) sys_clone ( 1200011, 0x0, 0x0, 0x4a, 0x0 )   clone(fork): process 7 created child 9\n"
            b" --> [pre-success] Success(0x9) \n"
            b" S 1000,8\n"
            b"SYSCALL[7,1](59) sys_execve ( 0x10a00a(/bin/none), 0x1fff, 0x1fff ) --> [pre-fail] Failure(0x2)\n"
            b"SYSCALL[7,1](231) exit_group( 3 ) --> [pre-success] Success(0x0) \n"
        )
        told = [(at, e.op, e.pid, e.address, e.length, e.argument) for at, e in events(path)]
        assert told == [
            (1, Op.BRK, 1, 0x4035000, 0, 0),
            (1, Op.MAP, 1, 0x4835000, 8192, 3),
            (2, Op.PROTECT, 1, 0x4835000, 4096, 1),
            (2, Op.BRK, 1, 0x4056000, 0, 0),
            (16, Op.MOVE, 1, 0x4835000, 8192, 0x5000000),
            (16, Op.MAP, 1, 0x5002000, 8192, 3),
            (16, Op.UNMAP, 1, 0x5001000, 12288, 0),
            (16, Op.UNMAP, 1, 0x5000000, 4096, 0),
            (17, Op.FORK, 1, 0, 0, 2),
            (19, Op.EXIT, 1, 0, 0, 3),
        ]
        # the event between them keeps two reads of one page apart; read writes 14 lines, 8 and 6 of two pages
        before, filled = [(0x1000, 0, 1), (0x1000, 0, 1)], [(0x1F_FEFF_E000, 1, 8), (0x1F_FEFF_F000, 1, 6)]
        path_read = (0x10A000, 0, 1)  # by execve
        assert found(path) == [*before, *filled, (0x2000, 0, 1), (0x1000, 1, 1), path_read]

    def test_an_execve_without_return_is_the_end(self, folder: Path):
        path = folder / "exec"
        path.write_bytes(b" L 1000,8\nSYSCALL[7,1](59) sys_execve ( 0x10a00a(/bin/true), 0x1f, 0x1f )\n")
        assert [(at, event.op) for at, event in events(path, "lackey")] == [(2, Op.EXEC)]  # after its path

    def test_where_blocks_end_does_not_matter(self, folder: Path):
        path = folder / "long"
        those = [(4096 * (n % 7) + n % 4096, Kind(n % 3)) for n in range(200_000)]  # some 3 MB
        path.write_bytes(as_lackey(those))
        assert found(path) == expected(those)


def test_a_change_of_workload_is_a_switch(folder: Path):
    path = folder / "switch.drmemtrace"
    path.write_bytes(
        b"1 1: W0.T5 read 8 byte(s) @ 0x1000\n2 1: W0.T6 read 8 byte(s) @ 0x1000\n3 1: W1.T7 write 8 byte(s) @ 0x2ffc\n"
    )
    told = [(at, event.op, event.pid, event.argument) for at, event in events(path)]
    assert told == [(1, Op.THREAD, 1, 1), (2, Op.SWITCH, 2, 0), (2, Op.THREAD, 2, 2)]
    assert found(path) == [(0x1000, 0, 1), (0x1000, 0, 1), (0x2000, 1, 1), (0x3000, 1, 1)]


def test_the_view_tool_of_2022_had_no_instruction_numbers(folder: Path):
    path = folder / "view2022.txt"
    path.write_bytes(
        b"Output format:\n<record#>: T<tid> <record details>\n" + b"-" * 60 + b"\n"
        b"        1: T11   <marker: version 3>\n"
        b"        2: T11   ifetch 5 byte(s) @ 0x0000000000401000 e8 d3 0c 00 00       call   $0x00401cd8\n"
        b"        3: T12   read   8 byte(s) @ 0x0000000000500000  by PC 0x0000000000401000\n"
        b"        4: T12   pref-r-L1    8 byte(s) @ 0x0000000000600000 by PC 0x0000000000401000\n"
        b"        5: T12   ifetch      11 byte(s) @ 0x0000000000401005 48 c7 84 24 88 00 00 movq   $0x00, %rax\n"
        b"        5: T12                                               00 00 00 00\n"
        b"View tool results:\n              2 : total instructions\n"
    )
    assert readers.detect(path) == "drmemtrace"
    notes = readers.Notes()
    (chunk,) = readers.read(path, notes=notes)
    assert chunk.address.tolist() == [0x500000]
    assert notes.left_out == {"markers": 1, "fetches": 2, "prefetches": 1, "sizes": 1}
