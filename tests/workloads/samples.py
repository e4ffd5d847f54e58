"""Accesses written in every text format, and what a reader is to make of them, worked out one by one."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from vmsim.cli.trace import command
from vmsim.workloads import Kind, Stream, open_stream, readers

Access = tuple[int, Kind]

needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")

LACKEY = b"""== Lackey,
 L 1000,8
 S 2000,8
 S 2008,8
I  7000,4
SYSCALL[7,1](231) exit_group( 3 ) --> [pre-success] Success(0x0)
"""


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


SAMPLE: list[Access] = [(0x1000, Kind.READ), (0x1FFF, Kind.WRITE), (0x7FFF_0000_0000, Kind.FETCH), (0x1008, Kind.READ)]


def expected(those: list[Access], granule: int = 4096) -> list[tuple[int, int, int]]:
    """Join accesses to runs, one by one: (address, kind, count)."""
    runs: list[tuple[int, int, int]] = []
    for address, kind in those:
        block = (address - (1 << 64) if address >> 63 else address) // granule * granule
        if runs and runs[-1][:2] == (block, kind):
            runs[-1] = (block, kind, runs[-1][2] + 1)
        else:
            runs.append((block, kind, 1))
    return runs


def found(path: Path, form: str = "auto", granule: int = 4096) -> list[tuple[int, int, int]]:
    runs: list[tuple[int, int, int]] = []
    for chunk in readers.read(path, form, granule=granule, fetch=True):
        assert [column.dtype for column in chunk[:3]] == [np.int64, np.int32, np.uint8]
        runs += zip(chunk.address.tolist(), chunk.kind.tolist(), chunk.count.tolist(), strict=True)
    return runs


def as_lackey(those: list[Access]) -> bytes:
    head = {Kind.READ: " L ", Kind.WRITE: " S ", Kind.FETCH: "I  "}
    return b"==1== Lackey\n" + "".join(f"{head[kind]}{address:08x},1\n" for address, kind in those).encode()


def as_dinero(those: list[Access]) -> bytes:
    return "".join(f"{int(kind)} {address:x} ignored\n" for address, kind in those).encode()


def as_drmemtrace(those: list[Access]) -> bytes:
    words = {Kind.READ: "read", Kind.WRITE: "write", Kind.FETCH: "ifetch"}
    text = "Output format:\n<--record#-> <--instr#->: <---tid---> <record details>\n" + "-" * 60 + "\n"
    text += "           1           0: W0.T27 <marker: version 5>\n"
    for number, (address, kind) in enumerate(those):
        text += f"{number + 2:12} {number:11}: W0.T27 {words[kind]:8} {1:4} byte(s) @ 0x{address:016x} by PC 0x0401\n"
    return (text + "View tool results:\n             9 : total instructions\n").encode()


def as_csv(those: list[Access]) -> bytes:
    return b"kind,address\n" + "".join(f"{kind.name.lower()},{address:#x}\n" for address, kind in those).encode()


def as_champsim(those: list[Access], places: tuple[int, int] = (2, 0)) -> bytes:
    """One record an access; a fetch has to be the instruction's own address."""
    writes, pad = places
    data = b""
    for address, kind in those:
        registers = bytes(6 if not pad else 14)
        stores, loads = [0] * writes, [0] * 4
        if kind == Kind.WRITE:
            stores[-1] = address
        elif kind == Kind.READ:
            loads[1] = address
        record = struct.pack(f"<QBB{len(registers)}s{writes}Q4Q", 0x401000, 0, 0, registers, *stores, *loads)
        data += record + bytes(pad)
    return data


TEXT: dict[str, Callable[[list[Access]], bytes]] = {
    "lackey": as_lackey,
    "dinero": as_dinero,
    "drmemtrace": as_drmemtrace,
    "csv": as_csv,
}
