"""Is every damaged or malicious trace refused with one sentence, at once, in little memory, and nothing left behind?

A table: file x verb. What could take all memory or never end runs in a process of its own, with limits.
"""

from __future__ import annotations

import gzip
import io
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tests.workloads.forged import HEADER, chunk, frame, planes, totals, vmtrace, zeros
from vmsim.cli import _status

DEEP = b"[" * 100_000 + b"]" * 100_000
MOST = (1 << 63) - 1


def event(op: int, address: int, length: int, argument: int) -> bytes:
    """Return a trace with an operation before its first run."""
    names = ("map", "unmap", "protect", "brk", "fork", "exec", "exit", "switch", "compute", "io")
    part = chunk(events=[(0, 1, op, address, length, argument)])
    return vmtrace(chunks=[part], footer=totals(events={names[op]: 1}), events=1)


def header(**changed: object) -> bytes:
    return vmtrace(header=HEADER | changed)


def footer(**changed: object) -> bytes:
    return vmtrace(footer=totals(**changed))


def without(key: str) -> bytes:
    return vmtrace(footer={name: value for name, value in totals().items() if name != key})


def table(columns: dict[str, object] | pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), out)
    return out.getvalue()


def twice() -> bytes:
    numbers = pa.array([4096])
    return table(pa.Table.from_arrays([numbers, numbers], names=["address", "address"]))


DAMAGED: dict[str, bytes | Callable[[], bytes]] = {
    # header
    "deep.vmtrace": vmtrace(header=b'{"granule":4096,"x":' + DEEP + b"}"),
    "list.vmtrace": vmtrace(header=b"[]"),
    "nan.vmtrace": vmtrace(header=b'{"granule":NaN}'),
    "digits.vmtrace": vmtrace(header=b'{"granule":' + b"9" * 5000 + b"}"),
    "command-number.vmtrace": header(command=5),
    "command-numbers.vmtrace": header(command=["a", 5]),
    "command-null.vmtrace": header(command=None),
    "tool-list.vmtrace": header(tool=["a"]),
    "source-object.vmtrace": header(source={}),
    "fetch-word.vmtrace": header(fetch="yes"),
    "granule-float.vmtrace": header(granule=4096.0),
    "granule-true.vmtrace": header(granule=True),
    "granule-128.vmtrace": header(granule=128),
    "granule-word.vmtrace": header(granule="4096"),
    "not-utf-8.vmtrace": vmtrace(header=b'{"granule":4096,"tool":"\xff"}'),
    "long-header.vmtrace": header(x="y" * (2 << 20)),
    # totals
    "totals-deep.vmtrace": vmtrace(footer=b'{"x":' + DEEP + b"}"),
    "totals-empty.vmtrace": vmtrace(footer={}),
    "totals-accesses.vmtrace": vmtrace(footer={"accesses": 2}),
    "totals-list.vmtrace": vmtrace(footer=b"[1]"),
    "totals-words.vmtrace": footer(runs="1"),
    "totals-float.vmtrace": footer(reads=2.0),
    "totals-true.vmtrace": footer(runs=True),
    "totals-negative.vmtrace": footer(reads=-1, writes=3),
    "totals-huge.vmtrace": footer(longest_run=1 << 70),
    "totals-events-list.vmtrace": footer(events=[1]),
    "totals-events-words.vmtrace": footer(events={"map": "1"}),
    "totals-events-unknown.vmtrace": footer(events={"[/x]": 0}),
    "totals-events-more.vmtrace": footer(events={"map": 1}),
    "totals-reuse-short.vmtrace": footer(reuse=[1]),
    "totals-reuse-words.vmtrace": footer(reuse=["1"] * 10),
    "totals-reuse-wrong.vmtrace": footer(reuse=[1] * 10),
    "totals-pages.vmtrace": footer(pages=7),
    "totals-kinds.vmtrace": footer(reads=1),
    **{f"totals-no-{key}.vmtrace": without(key) for key in totals()},
    # regions
    "regions-negative.vmtrace": vmtrace(regions=(1, frame(planes(np.array([1, -1], "<i8"))))),
    "regions-none.vmtrace": vmtrace(regions=(0, b"")),
    "regions-far.vmtrace": vmtrace(regions=(1, frame(planes(np.array([1 << 50, 1], "<i8"))))),
    "regions-least.vmtrace": vmtrace(regions=(1, frame(planes(np.array([-(1 << 63), 1], "<i8"))))),
    "regions-unsorted.vmtrace": vmtrace(
        regions=(2, frame(planes(np.array([5, -4, 1, 1], "<i8")))), footer=totals(pages=2)
    ),
    "regions-overflow.vmtrace": vmtrace(regions=(2, frame(planes(np.array([MOST, MOST, MOST, MOST], "<i8"))))),
    # chunks
    "no-chunk.vmtrace": vmtrace(chunks=[], footer=totals()),
    "empty.vmtrace": vmtrace(
        chunks=[],
        footer=totals(accesses=0, runs=0, reads=0, longest_run=0, pages=0, reuse=[0] * 10),
        regions=(0, b""),
    ),
    # files
    "empty.csv": b"",
    "empty.u64": b"",
    "empty.lackey": b"",
    "empty.parquet": b"",
    "empty.din.gz": gzip.compress(b""),
    "blank.csv": b"\n\n\n",
    "header.csv": b"address,kind\n",
    "newline.csv": b'address,kind\n"0x10\n00",R\n',
    "open-quote.csv": b'address,kind\n"0x1000,R\n' * 3,
    "long-line.csv": b"address\n" + b"1" * (3 << 20),
    "long-line.din": b"0 " + b"1" * (3 << 20),
    "long-line.lackey": b" L " + b"1" * (3 << 20),
    "wide.csv": b",".join([b"address"] + [b"x"] * 5000) + b"\n",
    "nul.csv": b"address\n\0\0\0\n",
    "twice.csv": b"address,address\n1,2\n",
    "comments.lackey": b"==1== Lackey\n",
    "escapes.din": b"3 0\n4 0\n",
    "zeros.champsim": bytes(64 * 8),
    "zeros.cloudsuite": bytes(96 * 8),
    "odd.u64": bytes(7),
    "rows-none.parquet": lambda: table({"address": pa.array([], pa.int64())}),
    "twice.parquet": twice,
    "nested.parquet": lambda: table({"address": [[1]]}),
    "cut.parquet": lambda: table({"address": [1]})[:-1],
    "magic.parquet": b"PAR1PAR1",
    "cut.din.zst": zstandard.compress(b"0 1000\n" * 1000)[:-4],
    "magic.din.zst": b"\x28\xb5\x2f\xfd",
    "magic.din.xz": b"\xfd7zXZ\0",
    "archive.zip": b"PK\x03\x04 more",
    "name[/x].din": b"0 zzz\n",
}
# What only the chunks hold: `info` does not decode them.
WITHIN: dict[str, bytes] = {
    "map-far.vmtrace": event(0, 4096, MOST & -4096, 3),
    "map-beyond.vmtrace": event(0, (1 << 62), 4096, 3),
    "map-odd.vmtrace": event(0, 5, 4096, 3),
    "unmap-far.vmtrace": event(1, 0, MOST & -4096, 0),
    "protect-far.vmtrace": event(2, 4096, MOST & -4096, 1),
    "brk-negative.vmtrace": event(3, -(1 << 63), 0, 0),
    "brk-far.vmtrace": event(3, MOST, 0, 0),
    "length-negative.vmtrace": event(1, 4096, -4096, 0),
    "fork-none.vmtrace": event(4, 0, 0, -1),
    "compute-far.vmtrace": event(8, 0, 0, 1 << 62),
    "compute-negative.vmtrace": event(8, 0, 0, -1),
    "io-negative.vmtrace": event(9, 4096, 4096, -1),
    "io-far.vmtrace": event(9, 4096, 4096, 1 << 62),
    "io-large.vmtrace": event(9, 4096, 1 << 55, 1),
    "blocks.vmtrace": vmtrace(chunks=[chunk(blocks=2_000_000_000)]),
    "longs.vmtrace": vmtrace(chunks=[chunk(longs=2)]),
    "runs.vmtrace": vmtrace(chunks=[chunk(runs=1 << 30)]),
    "events.vmtrace": vmtrace(chunks=[chunk(events=100_000_000)]),
    "kind.vmtrace": vmtrace(chunks=[chunk(columns={"kind": frame(b"\7")})]),
    "count.vmtrace": vmtrace(chunks=[chunk(columns={"count": frame(b"\3")})]),
    "rank.vmtrace": vmtrace(chunks=[chunk(columns={"rank": frame(b"\0")})]),
    "block-far.vmtrace": vmtrace(chunks=[chunk(columns={"block": frame(planes(np.array([MOST], "<i8")))})]),
    "frame.vmtrace": vmtrace(chunks=[chunk(columns={"kind": b"no frame"})]),
}
CASES = [(name, verb) for name in DAMAGED for verb in ("info", "convert", "run")]
CASES += [(name, verb) for name in WITHIN for verb in ("convert", "run")]


def words(verb: str, path: Path | str, folder: Path) -> list[str]:
    """Return a command line that reads a trace; what it writes goes to `folder`."""
    if verb == "run":
        scenario = folder / "scenario.toml"
        quoted = str(path).replace("\\", "\\\\")
        scenario.write_text(
            '[host]\ncpu = "skylake-x"\nmemory = "64MiB"\n[[vm]]\nname = "a"\nmemory = "4MiB"\nmode = "native"\n'
            f'workload = {{kind = "trace", path = "{quoted}"}}\n'
        )
        return ["run", str(scenario), "--out", str(folder / "out")]
    return ["trace", verb, str(path), *([str(folder / "out.u64")] if verb == "convert" else [])]


def check(status: int, text: str, folder: Path) -> None:
    """Check that there was one sentence and that nothing is left."""
    assert status == 2, text
    lines = [line for line in text.strip().splitlines() if not line.startswith("vmsim: warning: ")]
    assert len(lines) == 1, text
    assert lines[0].startswith("vmsim: ")
    assert len(lines[0]) < 1000
    assert [path.name for path in folder.iterdir() if path.name != "scenario.toml"] == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    for name, data in (DAMAGED | WITHIN).items():
        (folder / name.replace("/", "\u2215")).write_bytes(data() if callable(data) else data)
    return folder


@pytest.mark.parametrize(("name", "verb"), CASES)
def test_a_damaged_trace_is_refused(
    name: str, verb: str, files: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    status = _status(words(verb, files / name.replace("/", "\u2215"), tmp_path))
    assert time.monotonic() - started < 10
    check(status, capfd.readouterr().err, tmp_path)


def test_the_forged_file_itself_is_a_trace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.vmtrace").write_bytes(vmtrace())
    (tmp_path / "b.vmtrace").write_bytes(event(0, 4096, 4096, 3))
    for name in ("a", "b"):
        for verb in ("info", "convert", "run"):
            (tmp_path / name / verb).mkdir(parents=True)
            assert _status(words(verb, tmp_path / f"{name}.vmtrace", tmp_path / name / verb)) == 0
    capfd.readouterr()


@pytest.mark.parametrize("word", ["[/x]", "[bold]", "a\x1b[31m\nb", "é\ud800"])
def test_a_name_that_looks_like_markup_is_only_a_name(
    word: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.vmtrace"
    path.write_bytes(vmtrace(header=HEADER | {"command": [word], "tool": word, "source": word}))
    assert _status(["trace", "info", str(path)]) == 0
    out = capfd.readouterr().out
    assert "\x1b" not in out
    assert word[:3] in out or not word.isprintable()


@pytest.mark.parametrize("op", [0, 1, 2, 8, 9])
def test_operations_at_their_bounds_end(op: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Regions of all user space, the longest compute and the longest transfer: done, refused or out of memory."""
    end = 1 << 47
    bounds = {0: (0, end, 3), 1: (0, end, 0), 2: (0, end, 1), 8: (0, 0, 1 << 60), 9: (4096, 1 << 36, 10**16)}
    (tmp_path / "a.vmtrace").write_bytes(event(op, *bounds[op]))
    started = time.monotonic()
    assert _status(words("run", tmp_path / "a.vmtrace", tmp_path)) in (0, 2, 3)
    assert time.monotonic() - started < 10
    assert "Traceback" not in capfd.readouterr().err


def test_operations_that_add_up_to_the_end_of_time_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    part = chunk(events=[(0, 1, 8, 0, 0, 1 << 60)] * 20)
    (tmp_path / "a.vmtrace").write_bytes(vmtrace(chunks=[part], footer=totals(events={"compute": 20}), events=20))
    folder = tmp_path / "made"
    folder.mkdir()
    check(_status(words("run", tmp_path / "a.vmtrace", folder)), capfd.readouterr().err, folder)


def regions_bomb(folder: Path) -> Path:
    path = folder / "regions.vmtrace"
    path.write_bytes(vmtrace(regions=(100_000_000, zeros(1_600_000_000))))
    return path


def blocks_bomb(folder: Path) -> Path:
    path = folder / "blocks.vmtrace"
    path.write_bytes(vmtrace(chunks=[chunk(blocks=100_000_000, columns={"block": zeros(800_000_000)})]))
    return path


def events_bomb(folder: Path) -> Path:
    path = folder / "events.vmtrace"
    path.write_bytes(vmtrace(chunks=[chunk(events=50_000_000, columns={"event": zeros(1_800_000_000)})]))
    return path


def packed_bomb(folder: Path) -> Path:
    path = folder / "packed.vmtrace.zst"
    with zstandard.open(path, "wb") as file:
        file.write(b"\x89vmt\r\n\x1a\n")
        for _ in range(300):
            file.write(bytes(1 << 22))
    return path


def line_bomb(folder: Path) -> Path:
    path = folder / "line.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"address\n")
        for _ in range(200):
            file.write(b"1" * (1 << 20))
    return path


def sparse(folder: Path) -> Path:
    path = folder / "sparse.din"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    return path


def pipe(folder: Path) -> Path:
    path = folder / "pipe.din"
    os.mkfifo(path)
    return path


NASTY: dict[str, Callable[[Path], Path]] = {
    "regions": regions_bomb,
    "blocks": blocks_bomb,
    "events": events_bomb,
    "packed": packed_bomb,
    "line": line_bomb,
    "sparse": sparse,
    "pipe": pipe,
    "zero": lambda _: Path("/dev/zero"),
    "memory": lambda _: Path("/proc/self/mem"),
    "kernel log": lambda _: Path("/proc/kmsg"),
}


@pytest.mark.parametrize("name", NASTY)
def test_what_would_take_all_memory_or_never_end_is_refused(name: str, tmp_path: Path) -> None:
    path = NASTY[name](tmp_path)
    folder = tmp_path / "made"
    folder.mkdir()
    most = tmp_path / "most"  # that it has had; getrusage's is inherited
    code = (
        "import sys; from pathlib import Path; from vmsim.cli import main\n"
        "try: main(sys.argv[2:])\n"
        "finally: Path(sys.argv[1]).write_text(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    with (tmp_path / "stderr").open("w+") as text:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(most), *words("convert", path, folder)],
            stderr=text,
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (10, 11)),
        )
        until = time.monotonic() + 60
        pid = 0
        while not pid and time.monotonic() < until:
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            time.sleep(0.02)
        if not pid:
            process.kill()
        assert pid, "it neither ends nor computes"
        process.returncode = os.waitstatus_to_exitcode(status)
        assert int(most.read_text()) << 10 < 1 << 30, "it takes more than 1 GiB"
        text.seek(0)
        check(process.returncode, text.read(), folder)


@pytest.mark.parametrize("verb", ["info", "convert", "run"])
@pytest.mark.parametrize(
    "name", ["missing.din", "x/" * 2500, "y" * 300, "folder"], ids=["missing", "deep", "long", "folder"]
)
def test_a_name_that_is_no_file_is_refused(
    name: str, verb: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    folder = tmp_path / "made"
    folder.mkdir()
    check(_status(words(verb, tmp_path / name, folder)), capfd.readouterr().err, folder)
