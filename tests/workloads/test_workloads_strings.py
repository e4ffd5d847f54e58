"""Is a string instruction as many accesses as a processor makes of it, not one for each element?

Intel SDM vol. 3A, "Fast-String Operation and Out-of-Order Stores": movs and stos go cache line by cache line, if
addresses ascend and source and destination are a line apart. The texts below are what valgrind's lackey writes of the
instructions: the fetch and the accesses of each element, and a last fetch that finds the counter at zero.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.workloads.samples import found, vmsim_trace
from vmsim.workloads import Kind, readers
from vmsim.workloads.recorder import record
from vmsim.workloads.vmtrace import Vmtrace

READ, WRITE = int(Kind.READ), int(Kind.WRITE)
Element = list[tuple[str, int]]


def lackey(elements: list[Element], size: int = 1, ip: int = 0x40113F) -> str:
    each = "".join(
        f"I  {ip:08x},2\n" + "".join(f" {kind} {address:08x},{size}\n" for kind, address in those) for those in elements
    )
    return f"I  {ip - 1:08x},1\n{each}I  {ip:08x},2\nI  {ip + 2:08x},7\n"


def drmemtrace(elements: list[Element], size: int = 1, ip: int = 0x40113F) -> str:
    lines = []
    for number, those in enumerate(elements):
        fetch = f"ifetch {2:4} byte(s) @ 0x{ip:016x} {'f3 aa rep stosb' if not number else 'non-fetched instruction'}"
        lines.append(fetch)
        for kind, address in those:
            what = "write" if kind == "S" else "read"
            lines.append(f"{what} {size:4} byte(s) @ 0x{address:016x} by PC 0x{ip:016x}")
    lines.append(f"ifetch {3:4} byte(s) @ 0x{ip + 2:016x} non-branch")
    return "".join(f"{at + 1:12} {1:11}: W0.T27 {line}\n" for at, line in enumerate(lines))


def stos(first: int, count: int, step: int = 1) -> list[Element]:
    return [[("S", first + step * at)] for at in range(count)]


def movs(source: int, target: int, count: int, step: int = 1) -> list[Element]:
    return [[("L", source + step * at), ("S", target + step * at)] for at in range(count)]


CASES = {
    "stosb of a page: 64 lines": (stos(0x5000, 4096), 1, {(0x5000, WRITE): 64}),
    "stosb from within a line over a page's end": (stos(0x5FFA, 20), 1, {(0x5000, WRITE): 1, (0x6000, WRITE): 1}),
    "stosb of one byte": (stos(0x5000, 1), 1, {(0x5000, WRITE): 1}),
    "stosq of two lines": (stos(0x5000, 16, 8), 8, {(0x5000, WRITE): 2}),
    # the elements at 0x5ffc and 0x6004 + 56 cross into 0x6000 and 0x6040
    "stosq that lies across lines and pages": (stos(0x5FFC, 9, 8), 8, {(0x5000, WRITE): 1, (0x6000, WRITE): 2}),
    "movsb of 130 bytes": (movs(0x7000, 0x9020, 130), 1, {(0x7000, READ): 3, (0x9000, WRITE): 3}),
    "movsb to where a line lies between": (movs(0x7000, 0x7040, 64), 1, {(0x7000, READ): 1, (0x7000, WRITE): 1}),
    "movsb nearer than a line: by the byte": (movs(0x7000, 0x7001, 64), 1, {(0x7000, READ): 64, (0x7000, WRITE): 64}),
    "movsb back, nearer than a line": (movs(0x7008, 0x7000, 64), 1, {(0x7000, READ): 64, (0x7000, WRITE): 64}),
    "stosb that descends: by the byte": (stos(0x5FFF, 64, -1), 1, {(0x5000, WRITE): 64}),
    "scasb, lodsb: by the byte": ([[("L", 0x5000 + at)] for at in range(64)], 1, {(0x5000, READ): 64}),
    "cmpsb: by the byte": (
        [[("L", 0x5000 + at), ("L", 0x8000 + at)] for at in range(9)],
        1,
        {(0x5000, READ): 9, (0x8000, READ): 9},
    ),
}


@pytest.mark.parametrize("write", [lackey, drmemtrace])
@pytest.mark.parametrize("case", CASES)
def test_a_string_is_an_access_to_each_line(case: str, write, tmp_path: Path) -> None:
    elements, size, expected = CASES[case]
    path = tmp_path / "string"
    path.write_text(write(elements, size))
    for fetch in (False, True):
        counted: dict[tuple[int, int], int] = {}
        for chunk in readers.read(path, write.__name__, fetch=fetch):
            for address, count, kind in zip(*chunk[:3], strict=True):
                counted[int(address), int(kind)] = counted.get((int(address), int(kind)), 0) + int(count)
        fetches = {lackey: 3, drmemtrace: 2}[write]
        assert counted == expected | ({(0x401000, int(Kind.FETCH)): fetches} if fetch else {})


@pytest.mark.parametrize("write", [lackey, drmemtrace])
def test_by_lines_each_line_is_there_once(write, tmp_path: Path) -> None:
    path = tmp_path / "string"
    path.write_text(write(stos(0x5010, 200)))
    assert [run for run in found(path, write.__name__, granule=64) if run[1] == WRITE] == [
        (line, WRITE, 1) for line in (0x5000, 0x5040, 0x5080, 0x50C0)
    ]


def test_two_strings_of_one_instruction_are_two(tmp_path: Path) -> None:
    """In a loop, another instruction stands between."""
    path = tmp_path / "string"
    path.write_text(lackey(stos(0x5000, 64)) + lackey(stos(0x5000, 64)))
    assert found(path, "lackey")[1][:2] == (0x5000, WRITE)
    assert sum(count for _, kind, count in found(path, "lackey") if kind == WRITE) == 2


def test_where_the_text_is_parted_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "string"
    path.write_text(lackey(stos(0x10_0000, 200_000)))  # 5 MB, read in blocks of one
    assert sum(count for _, kind, count in found(path, "lackey") if kind == WRITE) == 200_000 / 64


def test_the_same_store_by_other_instructions_counts(tmp_path: Path) -> None:
    path = tmp_path / "loop"
    path.write_text("".join(f"I  00401000,4\n S {0x5000 + at:08x},1\nI  00401004,2\n" for at in range(9)))
    assert sum(count for _, kind, count in found(path, "lackey") if kind == WRITE) == 9


@pytest.mark.parametrize("write", [lackey, drmemtrace])
def test_what_is_joined_is_said(write, tmp_path: Path) -> None:
    path = tmp_path / f"string.{write.__name__}"
    path.write_text(write(movs(0x7000, 0x9000, 128)))
    result = vmsim_trace("convert", path, tmp_path / "out.vmtrace")
    assert "252 elements of rep movs and rep stos" in " ".join(result.stderr.split())
    assert Vmtrace.open(tmp_path / "out.vmtrace").totals["accesses"] == 4


PROGRAM = """
static char block[1 << 20] __attribute__((aligned(4096)));
int main(void) {
    void *to = block;
    long count = sizeof block;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(1) : "memory");
    return 0;
}
"""


@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("valgrind")), reason="needs cc and valgrind")
def test_a_recorded_memset_of_a_mebibyte_is_its_16384_lines(tmp_path: Path) -> None:
    (tmp_path / "program.c").write_text(PROGRAM)
    subprocess.run(["cc", "-o", tmp_path / "program", tmp_path / "program.c"], check=True)
    record([str(tmp_path / "program")], tmp_path / "program.vmtrace")
    trace = Vmtrace.open(tmp_path / "program.vmtrace")
    pages: dict[int, int] = {}
    for chunk in trace.chunks():
        for address, count in zip(chunk.address[chunk.kind == WRITE], chunk.count[chunk.kind == WRITE], strict=True):
            pages[int(address)] = pages.get(int(address), 0) + int(count)
    assert list(pages.values()).count(64) >= 256
    assert trace.totals["accesses"] < 200_000  # what starting a program takes, and 16,384
