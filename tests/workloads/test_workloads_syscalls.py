"""Does what a program's system calls do to its memory reach the guest's kernel, as Linux has it?

The texts are short recordings, cut and changed by hand; the right numbers of faults are counted by hand.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vmsim.api import run
from vmsim.workloads import Op
from vmsim.workloads.readers import read

START = 0x1000_0000
MAPPED = "SYSCALL[7,1](9) sys_mmap ( 0x0, 262144, 3, 34, 4294967295, 0 ) --> [pre-success] Success(0x10000000) \n"
CALL = (
    "SYSCALL[7,{thread}]({number}) sys_{call} --> [async] ... \n"
    "SYSCALL[7,{thread}]({number}) ... [async] --> Success(0x0) \n"
)
SCENARIO = """
[host]
cpu = "skylake-x"
memory = "256MiB"
[[vm]]
name = "a"
memory = "4MiB"
mode = "{mode}"
workload = {{ kind = "trace", path = "{path}" }}
"""


def stores(pages: range, start: int = START) -> str:
    return "".join(f" S {start + page * 4096:x},8\n" for page in pages)


def loads(pages: range, start: int) -> str:
    return stores(pages, start).replace(" S ", " L ")


def call(number: int, text: str, thread: int = 1) -> str:
    return CALL.format(number=number, call=text, thread=thread)


FORK = "SYSCALL[7,1]({}) sys_{} process 7 created child 8\n"
FORKED = FORK.format(56, "clone ( 1200011, 0x0, 0x0, 0x4000650, 0x0 )   clone(fork):")
SHARED = "SYSCALL[7,1](9) sys_mmap ( 0x0, 131072, 3, 33, 4294967295, 0 ) --> [pre-success] Success(0x20000000) \n"
PRIVATE_FILE = "SYSCALL[7,1](9) sys_mmap ( 0x0, 131072, 3, 2, 3, 0 ) --> [pre-success] Success({:#x}) \n"
ALL, HALF = range(64), range(32)
AGAIN = stores(ALL)
CASES = {
    # a fork takes the right to write away, and each page faults once; vfork, posix_spawn and threads share
    "fork": (FORK.format(56, "clone ( 1200011, 0x0, 0x0, 0x4000650, 0x0 )   clone(fork):") + AGAIN, 128),
    "fork by number": (FORK.format(57, "fork ( )   fork:") + AGAIN, 128),
    # what madvise keeps from children is not shared with them, and its pages do not fault again
    "DONTFORK": (call(28, "madvise ( 0x10000000, 131072, 10 )") + FORKED + AGAIN, 64 + 32),
    "DONTFORK taken back": (
        call(28, "madvise ( 0x10000000, 131072, 10 )") + call(28, "madvise ( 0x10000000, 65536, 11 )") + FORKED + AGAIN,
        64 + 48,
    ),
    "WIPEONFORK": (call(28, "madvise ( 0x10000000, 131072, 18 )") + FORKED + AGAIN, 64 + 32),
    "vfork": (FORK.format(58, "fork ( )   fork:") + AGAIN, 64),
    "posix_spawn": (FORK.format(56, "clone ( 4111, 0x4808ff0, 0x0, 0x0, 0x0 )   clone(fork):") + AGAIN, 64),
    "clone with CLONE_VM alone": (
        FORK.format(56, "clone ( 111, 0x4808ff0, 0x0, 0x0, 0x0 )   clone(fork):") + AGAIN,
        64,
    ),
    "clone3": (FORK.format(435, "clone3 ( 0x1fff000000, 88 )   clone(fork):") + AGAIN, 64),
    "thread": (
        "SYSCALL[7,1](56) sys_clone ( 3d0f00, 0x5229f70, 0x522a990, 0x522a990, 0x522a6c0 ) --> [pre-success] "
        "Success(0x3d67) \n" + AGAIN,
        64,
    ),
    # what mremap moves is there, and the rest of the new region is not
    "mremap": (
        "SYSCALL[7,1](25) sys_mremap ( 0x10000000, 262144, 524288, 0x1 ) --> [pre-success] Success(0x20000000) \n"
        + stores(range(128), 0x2000_0000),
        64 + 64,
    ),
    "mremap, smaller": (
        "SYSCALL[7,1](25) sys_mremap ( 0x10000000, 262144, 131072, 0x1 ) --> [pre-success] Success(0x10000000) \n"
        + AGAIN,
        64 + 32,
    ),
    "mremap, grown in place": (
        "SYSCALL[7,1](25) sys_mremap ( 0x10000000, 262144, 524288, 0x1 ) --> [pre-success] Success(0x10000000) \n"
        + stores(range(128)),
        64 + 64,
    ),
    "mremap that keeps its old region": (
        "SYSCALL[7,1](25) sys_mremap ( 0x10000000, 262144, 262144, 0x5 ) --> [pre-success] Success(0x20000000) \n"
        + AGAIN
        + stores(ALL, 0x2000_0000),
        64 + 64,
    ),
    "DONTNEED": (call(28, "madvise ( 0x10000000, 131072, 4 )") + AGAIN, 64 + 32),
    "FREE": (call(28, "madvise ( 0x10000000, 262144, 8 )") + AGAIN, 64),
    "WILLNEED": (call(28, "madvise ( 0x10000000, 262144, 3 )") + AGAIN, 64),
    # two threads wait at once: each call has its own result
    "DONTNEED by two threads": (
        "SYSCALL[7,2](28) sys_madvise ( 0x10000000, 65536, 4 ) --> [async] ... \n"
        "SYSCALL[7,3](28) sys_madvise ( 0x10010000, 65536, 4 ) --> [async] ... \n"
        "SYSCALL[7,2](28) ... [async] --> Success(0x0) \n"
        "SYSCALL[7,3](28) ... [async] --> Success(0x0) \n" + AGAIN,
        64 + 32,
    ),
    "munmap of a part": (
        "SYSCALL[7,1](11) sys_munmap ( 0x10008000, 65536 )[sync] --> Success(0x0) \n" + AGAIN,
        64 + 16,
    ),
    "MAP_FIXED over a part": (
        "SYSCALL[7,1](9) sys_mmap ( 0x10008000, 65536, 3, 50, 4294967295, 0 ) --> [pre-success] Success(0x10008000) \n"
        + AGAIN,
        64 + 16,
    ),
    # populated by the kernel: faults, once each, whoever touches the pages later
    "MAP_POPULATE": (
        "SYSCALL[7,1](9) sys_mmap ( 0x0, 131072, 3, 32802, 4294967295, 0 ) --> [pre-success] Success(0x20000000) \n"
        + stores(HALF, 0x2000_0000),
        64 + 32,
    ),
    "MAP_POPULATE, not touched": (
        "SYSCALL[7,1](9) sys_mmap ( 0x0, 131072, 3, 32802, 4294967295, 0 ) --> [pre-success] Success(0x20000000) \n",
        64 + 32,
    ),
    "mlock": (
        "SYSCALL[7,1](9) sys_mmap ( 0x0, 131072, 3, 34, 4294967295, 0 ) --> [pre-success] Success(0x20000000) \n"
        + call(149, "mlock ( 0x20000800, 8192 )"),
        64 + 3,
    ),
    "mlockall, for later": (
        call(151, "mlockall ( 2 )")
        + "SYSCALL[7,1](9) sys_mmap ( 0x0, 131072, 3, 34, 4294967295, 0 ) --> [pre-success] Success(0x20000000) \n",
        64 + 32,
    ),
    "mlockall, on fault": (
        call(151, "mlockall ( 7 )")
        + "SYSCALL[7,1](9) sys_mmap ( 0x0, 131072, 3, 34, 4294967295, 0 ) --> [pre-success] Success(0x20000000) \n",
        64,
    ),
    # the heap grows by 32 pages, shrinks to none, and grows again
    "brk": (
        "".join(
            f"SYSCALL[7,1](12) sys_brk ( {end:#x} ) --> [pre-success] Success({end:#x}) \n{touched}"
            for end, touched in (
                (0x3000_0000, ""),
                (0x3002_0000, stores(HALF, 0x3000_0000)),
                (0x3000_0000, ""),
                (0x3002_0000, stores(HALF, 0x3000_0000)),
            )
        ),
        64 + 32 + 32,
    ),
    # pages of shared mappings stay as they are at a fork; the other 64 lose the right to write
    "fork, shared": (SHARED + stores(HALF, 0x2000_0000) + FORKED + stores(HALF, 0x2000_0000), 64 + 32),
    "fork, shared and protected before": (
        SHARED
        + stores(HALF, 0x2000_0000)
        + "".join(call(10, f"mprotect ( 0x20000000, 131072, {rights} )") for rights in (1, 3))
        + FORKED
        + stores(HALF, 0x2000_0000),
        64 + 32,
    ),
    "fork, System V": (
        "SYSCALL[7,1](29) sys_shmget ( 0, 131072, 896 )[sync] --> Success(0x2) \n"
        "SYSCALL[7,1](30) sys_shmat ( 2, 0x0, 0 )[sync] --> Success(0x20000000) \n"
        + stores(HALF, 0x2000_0000)
        + FORKED
        + stores(HALF, 0x2000_0000)
        + "SYSCALL[7,1](67) sys_shmdt ( 0x20000000 )[sync] --> Success(0x0) \n"
        "SYSCALL[7,1](30) sys_shmat ( 2, 0x0, 0 )[sync] --> Success(0x20000000) \n" + stores(HALF, 0x2000_0000),
        64 + 32 + 32,
    ),
    "REMOVE": (
        SHARED + stores(HALF, 0x2000_0000) + call(28, "madvise ( 0x20000000, 65536, 9 )") + stores(HALF, 0x2000_0000),
        64 + 32 + 16,
    ),
    # what the kernel reads and writes in system calls faults like what the program does
    "a buffer that read fills": (
        MAPPED.replace("0x10000000", "0x20000000")
        + "SYSCALL[7,1](0) sys_read ( 3, 0x20000ffc, 65536 ) --> [async] ... \n"
        "SYSCALL[7,1](0) ... [async] --> Success(0x2005) \n" + stores(range(4), 0x2000_0000),
        64 + 4,
    ),
    "a read of nothing": (
        "SYSCALL[7,1](0) sys_read ( 3, 0x20000ffc, 65536 )[sync] --> Success(0x0) \n",
        64,
    ),
    "a buffer that write reads": (
        MAPPED.replace("0x10000000", "0x20000000")
        + "SYSCALL[7,1](1) sys_write ( 1, 0x20000000, 8192 )[sync] --> Success(0x2000) \n"
        + stores(range(2), 0x2000_0000),
        64 + 2 + 2,
    ),
    "a path": (
        PRIVATE_FILE.format(0x2000_0000)
        + "SYSCALL[7,1](21) sys_access ( 0x20000ff8(/etc/ld-2.36.so.preload), 4 )[sync] --> Failure(0x2) \n",
        64 + 1,
    ),
    # memory that was never written to reads as zeros, and faults again when it is
    "zeros, read": (MAPPED.replace("0x10000000", "0x20000000") + loads(HALF, 0x2000_0000), 64 + 32),
    "zeros, read and written": (
        MAPPED.replace("0x10000000", "0x20000000") + 2 * (loads(HALF, 0x2000_0000) + stores(HALF, 0x2000_0000)),
        64 + 32 + 32,
    ),
    # 12 files of a page each, side by side: one fault each (mm/memory.c maps nothing beyond a mapping)
    "files side by side": (
        "".join(PRIVATE_FILE.replace("131072", "100").format(0x2000_0000 + 4096 * at) for at in range(12))
        + loads(range(12), 0x2000_0000),
        64 + 12,
    ),
    # a mapping that begins at the 12th page of its 64 KiB: 16 pages come from there (do_fault_around, from_pte + nr)
    "a file of 16 pages, read from within 64 KiB": (
        PRIVATE_FILE.replace("131072", "65536").format(0x2000_C000) + loads(range(16), 0x2000_C000),
        64 + 1,
    ),
    "a file, read, and allowed to be written": (
        PRIVATE_FILE.replace("131072, 3", "131072, 1").format(0x2000_0000)
        + loads(range(4), 0x2000_0000)
        + call(10, "mprotect ( 0x20000000, 131072, 3 )")
        + stores(range(4), 0x2000_0000),
        64 + 1 + 4,
    ),
    # a read of a file maps 64 KiB, a write one page; one that was read is copied when it is written
    "a file, read": (PRIVATE_FILE.format(0x2000_0000) + loads(HALF, 0x2000_0000), 64 + 2),
    "a file of 32 pages, read from within 64 KiB": (
        PRIVATE_FILE.format(0x2000_8000) + loads(HALF, 0x2000_8000),
        64 + 3,
    ),
    "a file, written": (PRIVATE_FILE.format(0x2000_0000) + stores(HALF, 0x2000_0000), 64 + 32),
    "a file, read and written": (
        PRIVATE_FILE.format(0x2000_0000) + loads(HALF, 0x2000_0000) + stores(HALF, 0x2000_0000),
        64 + 2 + 32,
    ),
    "a stack that grows": (stores(range(-20, 0), 0x1FFF_0000_00), 64 + 20),
    "a large mapping": (
        "SYSCALL[7,1](9) sys_mmap ( 0x0, 1099511627776, 3, 16418, 4294967295, 0 ) --> [pre-success] "
        "Success(0x20000000) \n" + stores(range(0, 1 << 20, 1 << 17), 0x2000_0000),
        64 + 8,
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_faults_are_those_that_linux_takes(what: str, tmp_path: Path) -> None:
    text, faults = CASES[what]
    (tmp_path / "t.lackey").write_text(MAPPED + stores(ALL) + text)
    (tmp_path / "t.toml").write_text(SCENARIO.format(mode="native", path="t.lackey"))
    assert run(tmp_path / "t.toml").summary["guest_faults"].tolist() == [faults]


@pytest.mark.parametrize("mode", ["ept", "shadow", "agile", "paired", "vkernel"])
def test_the_mode_changes_nothing_of_it(mode: str, tmp_path: Path) -> None:
    """A move, a discard, a vfork, a fork and a file: 64, none, 32, none, each of 64 once, and 2 and 32."""
    names = ("mremap that keeps its old region", "DONTNEED", "posix_spawn", "fork", "a file, read and written")
    (tmp_path / "t.lackey").write_text(MAPPED + stores(ALL) + "".join(CASES[name][0] for name in names))
    (tmp_path / "t.toml").write_text(SCENARIO.format(mode=mode, path="t.lackey"))
    assert run(tmp_path / "t.toml").summary["guest_faults"].tolist() == [64 + 64 + 32 + 64 + 2 + 32]


@pytest.mark.parametrize("mode", ["ept", "shadow", "agile", "vkernel"])
def test_what_a_file_has_around_a_page_is_mapped_and_touched_by_nobody(mode: str, tmp_path: Path) -> None:
    """Linux sets entries that lead to the page cache (mm/filemap.c, filemap_map_pages): no page of it is read.

    So of the 16 pages that one fault maps, the host backs the one that the program reads, or the four.
    """
    frames = []
    for pages in (range(1), range(4)):
        (tmp_path / "t.lackey").write_text(
            MAPPED + stores(ALL) + PRIVATE_FILE.format(0x2000_0000) + loads(pages, 0x2000_0000)
        )
        (tmp_path / "t.toml").write_text(SCENARIO.format(mode=mode, path="t.lackey"))
        summary = run(tmp_path / "t.toml").summary
        assert summary["guest_faults"].tolist() == [64 + 1]
        frames.append(int(summary["guest_frames"].iloc[0]))
    assert frames[1] - frames[0] == 3
    (tmp_path / "t.lackey").write_text(MAPPED + stores(ALL))
    assert frames[0] - int(run(tmp_path / "t.toml").summary["guest_frames"].iloc[0]) == 1 + 1  # the page, and a table


def test_a_vmtrace_carries_them(tmp_path: Path) -> None:
    from vmsim.workloads.export import export

    text = MAPPED + stores(ALL) + "".join(CASES[name][0] for name in ("mremap", "FREE", "vfork", "MAP_POPULATE"))
    (tmp_path / "t.lackey").write_text(text)
    export(tmp_path / "t.lackey", tmp_path / "t.vmtrace")
    told, again = (
        [event for chunk in read(tmp_path / name) for event in chunk.events] for name in ("t.lackey", "t.vmtrace")
    )
    assert told == again
    assert {Op.MOVE, Op.DISCARD, Op.SHARE, Op.POPULATE} <= {event.op for event in told}


REUSE = "".join(
    f"SYSCALL[7,1](9) sys_mmap ( 0x0, 1638400, 3, 34, 4294967295, 0 ) --> [pre-success] Success({start:#x}) \n"
    + stores(range(400), start)
    + f"SYSCALL[7,1](11) sys_munmap ( {start:#x}, 1638400 )[sync] --> Success(0x0) \n"
    for start in range(START, START + (4 << 24), 1 << 24)
)


@pytest.mark.parametrize("mode", ["native", "ept", "shadow", "vkernel"])
def test_a_trace_that_gives_memory_back_needs_what_it_has_at_once(mode: str, tmp_path: Path) -> None:
    """1,600 pages, of which 400 are mapped at a time, in a guest of 1,024 frames."""
    (tmp_path / "t.lackey").write_text(REUSE)
    (tmp_path / "t.toml").write_text(SCENARIO.format(mode=mode, path="t.lackey"))
    assert run(tmp_path / "t.toml").summary["guest_faults"].tolist() == [1600]


def test_a_trace_that_has_too_much_at_once_is_still_refused(tmp_path: Path) -> None:
    from vmsim.base.errors import InputError

    (tmp_path / "t.lackey").write_text(REUSE + stores(range(1025), 0x5000_0000))
    (tmp_path / "t.toml").write_text(SCENARIO.format(mode="ept", path="t.lackey"))
    with pytest.raises(InputError, match=r"mapped at once, 4198400 bytes"):
        run(tmp_path / "t.toml")
