"""Are a recording's threads read, given apart, and kept in the order that their memory needs?"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsim.workloads import Chunk, Event, Kind, Op, readers
from vmsim.workloads.apart import apart, together
from vmsim.workloads.export import export
from vmsim.workloads.recorder import record
from vmsim.workloads.trace import TraceStream
from vmsim.workloads.vmtrace import Vmtrace

PAGE = 4096


def flat(chunks: Iterator[Chunk]) -> list[tuple[Any, ...]]:
    """Return what chunks say, run by run: ("access", page, count) or (operation, pid, page, argument)."""
    made: list[tuple[Any, ...]] = []
    for chunk in chunks:
        events = list(chunk.events)
        for place in range(len(chunk.count) + 1):
            while events and events[0].position == place:
                event = events.pop(0)
                made.append((event.op.name.lower(), event.pid, event.address // PAGE, event.argument))
            if place < len(chunk.count):
                made.append(("access", int(chunk.address[place]) // PAGE, int(chunk.count[place])))
        assert not events
    return made


DRMEMTRACE = (
    b"1 1: W0.T50 read 8 byte(s) @ 0x1000\n"
    b"2 2: W0.T60 write 8 byte(s) @ 0x2000\n"
    b"3 3: W0.T60 write 8 byte(s) @ 0x2008\n"
    b"4 4: W1.T70 read 8 byte(s) @ 0x3000\n"
    b"5 5: W0.T50 read 8 byte(s) @ 0x4000\n"
)
LACKEY = b"""== Lackey,
--7--   SCHED[1]:  acquired lock (thread_wrapper(starting new thread))
 L 1000,8
SYSCALL[7,1](9) sys_mmap ( 0x0, 8192, 3, 34, 4294967295, 0 ) --> [pre-success] Success(0x5000) --7--   SCHED[1]: \
releasing lock (VG_(vg_yield)) -> VgTs_Yielding
--7--   SCHED[2]:  acquired lock (thread_wrapper(starting new thread))
--7--   SCHED[2]: entering VG_(scheduler)
 S 5000,8
 S 6000,8
--7--   SCHED[2]: releasing lock (VG_(client_syscall)[async]) -> VgTs_WaitSys
--7--   SCHED[1]:  acquired lock (VG_(vg_yield))
 S 5000,8
SYSCALL[7,1](11) sys_munmap ( 0x5000, 4096 )[sync] --> Success(0x0)
"""
CSV = b"address,rw,tid\n0x1000,r,9\n0x1008,r,4\n0x2000,w,4\n0x3000,w,9\n"


@pytest.mark.parametrize(
    ("name", "text", "threads", "own"),
    [
        (
            "a.drmemtrace",
            DRMEMTRACE,
            3,
            [
                [("access", 1, 1), ("access", 4, 1)],
                [("access", 2, 2)],
                [("switch", 2, 0, 0), ("access", 3, 1)],
            ],
        ),
        (
            "a.lackey",
            LACKEY,
            2,
            [
                [
                    ("access", 1, 1),
                    ("map", 1, 5, 3),
                    ("barrier", 1, 0, 0),  # the second thread touches what the first has mapped
                    ("access", 5, 1),
                    ("barrier", 1, 0, 0),  # and has done so before it is unmapped
                    ("unmap", 1, 5, 0),
                ],
                [("barrier", 1, 0, 0), ("access", 5, 1), ("access", 6, 1), ("barrier", 1, 0, 0)],
            ],
        ),
        ("a.csv", CSV, 2, [[("access", 1, 1), ("access", 3, 1)], [("access", 1, 1), ("access", 2, 1)]]),
    ],
)
def test_the_threads_of_each_format_are_apart(
    name: str, text: bytes, threads: int, own: list[Any], tmp_path: Path
) -> None:
    """By hand. And a .vmtrace made of it says the same."""
    path, made = tmp_path / name, tmp_path / "made.vmtrace"
    path.write_bytes(text)
    export(path, made)
    assert Vmtrace.open(made).totals["threads"] == threads
    for each in (path, made):
        stream = TraceStream(each, cpus=4)
        assert stream.threads == threads
        assert [flat(stream.chunks(thread)) for thread in range(threads)] == own


def test_one_cpu_has_one_stream_in_the_order_recorded(tmp_path: Path) -> None:
    path = tmp_path / "a.lackey"
    path.write_bytes(LACKEY)
    stream = TraceStream(path, cpus=1)
    assert stream.threads == 1
    said = [
        ("access", 1, 1),
        ("map", 1, 5, 3),
        ("access", 5, 1),
        ("access", 6, 1),
        ("access", 5, 1),
        ("unmap", 1, 5, 0),
    ]
    assert flat(stream.chunks()) == said
    assert flat(TraceStream(path, repeat=2).chunks()) == said + said


def test_a_repetition_begins_when_all_threads_have_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(CSV)
    stream = TraceStream(path, repeat=2, cpus=2)
    first, barrier = [("access", 1, 1), ("access", 3, 1)], [("barrier", 1, 0, 0)]
    assert flat(stream.chunks(0)) == first + barrier + first
    assert stream.accesses == 8


def test_a_parquet_table_has_threads_too(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"address": [PAGE, PAGE, 2 * PAGE], "thread": [7, 8, 7]}), path)
    stream = TraceStream(path, cpus=2)
    assert [flat(stream.chunks(thread)) for thread in range(2)] == [
        [("access", 1, 1), ("access", 2, 1)],
        [("access", 1, 1)],
    ]


# The order that barriers keep, against what the recording says.

Steps = list[tuple[int, str]]


def recorded(steps: Steps, size: int) -> Iterator[Chunk]:
    """Give a recording as chunks of so many steps; what thread t does at step n is at page n."""
    running = 0
    for first in range(0, len(steps), size):
        pages: list[int] = []
        events: list[Event] = []
        for place, (thread, what) in enumerate(steps[first : first + size], first):
            if thread != running:
                events.append(Event(len(pages), Op.THREAD, 1, 0, 0, thread))
                running = thread
            if what == "access":
                pages.append(place)
            else:
                events.append(Event(len(pages), Op[what.upper()], 1, place * PAGE, PAGE, 0))
        yield Chunk(
            np.array(pages, np.int64) * PAGE,
            np.ones(len(pages), np.int32),
            np.zeros(len(pages), np.uint8),
            tuple(events),
        )


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["access", "access", "access", "map", "unmap", "io"])),
        max_size=40,
    ),
    st.integers(1, 40),
)
def test_operations_stay_between_the_accesses_of_others_that_they_stood_between(steps: Steps, size: int) -> None:
    """Wherever two threads' steps could meet, one of them an operation: a barrier stands between, in their order."""
    parts = [flat(apart(recorded(steps, size), thread)) for thread in range(3)]
    assert len({sum(item[0] == "barrier" for item in part) for part in parts}) == 1
    phase: dict[int, int] = {}
    for thread, part in enumerate(parts):
        barriers = 0
        done = []
        for item in part:
            if item[0] == "barrier":
                barriers += 1
                continue
            place = item[1] if item[0] == "access" else item[2]
            phase[place] = barriers
            done.append(place)
        assert done == [place for place, (who, _) in enumerate(steps) if who == thread]
    ordered = {"map", "unmap"}
    for later, (who, what) in enumerate(steps):
        for earlier, (other, before) in enumerate(steps[:later]):
            assert phase[earlier] <= phase[later]
            if who != other and (what in ordered or before in ordered) and "io" not in (what, before):
                assert phase[earlier] < phase[later]
    whole = flat(together(recorded(steps, size)))
    assert [item[1] if item[0] == "access" else item[2] for item in whole] == [*range(len(steps))]


PROGRAM = """
#include <pthread.h>
#include <sys/mman.h>
static volatile char *all;
static void *work(void *arg) {
    volatile char *own = all + (long)arg * 16 * 4096;
    for (int i = 0; i < 1600; i++) own[i % 16 * 4096]++;
    return 0;
}
int main(void) {
    pthread_t thread[2];
    all = mmap((void *)0x600000000000, 2 * 16 * 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (long i = 0; i < 2; i++) pthread_create(&thread[i], 0, work, (void *)i);
    for (int i = 0; i < 2; i++) pthread_join(thread[i], 0);
    return 0;
}
"""


@pytest.mark.skipif(not (shutil.which("valgrind") and shutil.which("gcc")), reason="no valgrind, or no gcc")
def test_a_recording_of_a_program_knows_whose_accesses_are_whose(tmp_path: Path) -> None:
    """Two threads that a program starts each write pages of their own; the first thread touches none of these."""
    source, program, path = tmp_path / "two.c", tmp_path / "two", tmp_path / "two.vmtrace"
    source.write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-pthread", source, "-o", program], check=True)
    record([str(program)], path)
    stream = TraceStream(path, cpus=4)
    assert stream.threads in (2, 3)  # the second may begin when the first has ended
    touched: list[set[int]] = []
    for thread in range(stream.threads):
        pages = np.concatenate([chunk.address for chunk in stream.chunks(thread)]) // PAGE - (0x600000000000 // PAGE)
        touched.append({page for page in pages.tolist() if 0 <= page < 32})
    assert touched[0] == set()
    own = sorted((pages for pages in touched[1:] if pages), key=min)  # either may be the first to run
    assert own in ([{*range(16)}, {*range(16, 32)}], [{*range(32)}])
    writes = [chunk for chunk in readers.read(path) if (chunk.kind == Kind.WRITE).any()]
    assert writes
