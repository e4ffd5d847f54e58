"""Text of valgrind's lackey tool: `--trace-mem=yes`, and `--trace-syscalls=yes` for the events.

An access is `I  ADDRESS,SIZE` (fetch), ` L …` (load), ` S …` (store) or ` M …` (load, then store of the same place);
the address is hexadecimal, the size decimal. System calls stand where they happened. A modify is taken as two
accesses of kind WRITE. Everything else that valgrind says (`==pid==` and such) is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vmsim.errors import InputError
from vmsim.files import printable
from vmsim.workloads.readers.files import first_lines, opened, shown
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.runs import RunBuilder
from vmsim.workloads.stream import PAGE, WIDEST_END, Chunk, Op

__all__ = ["parse", "read", "sniff"]

_BLOCK = 1 << 20
_ACCESS = re.compile(rb"I  [0-9a-f]+,\d+|[ ][LSM] [0-9a-f]+,\d+")
_CALL = re.compile(rb"SYSCALL\[(\d{1,10}),\d{1,10}\]\([^)]{1,20}\) (?:sys_)?(\w*) ?(.*)", re.DOTALL)
_NUMBER = re.compile(rb"0x[0-9a-f]{1,16}|\d{1,20}")
_RESULT = re.compile(rb"(Success|Failure)\((0x[0-9a-f]{1,16})\)(.*)", re.DOTALL)
_GLUED = re.compile(rb" ?(I  [0-9a-f]+,\d+| [LSM] [0-9a-f]+,\d+)")
_CHILD = re.compile(rb"process \d{1,10} created child (\d{1,10})")
_PASSED = (b"==", b"--", b"**", b"SB ", b" -->")  # what valgrind and lackey say besides


def sniff(head: bytes) -> bool:
    """Return whether a file that begins with `head` looks like lackey's text."""
    lines = [line for line in first_lines(head) if not line.startswith(_PASSED)]
    ours = sum(bool(_ACCESS.fullmatch(line)) or line.startswith(b"SYSCALL[") for line in lines)
    return b"== Lackey," in head or (bool(lines) and 10 * ours >= 9 * len(lines))


def read(path: Path, *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None) -> Iterator[Chunk]:
    """Read a file of lackey's text; see `parse`."""
    with opened(path, text=True) as file:
        yield from parse(file, printable(path), granule=granule, fetch=fetch, notes=notes)


def parse(
    file: BinaryIO,
    name: str,
    *,
    granule: int = PAGE,
    fetch: bool = False,
    complete: bool = True,
    notes: Notes | None = None,
) -> Iterator[Chunk]:
    """Read lackey's text from a file or pipe.

    The last line of a file need not have an end. With `complete = False` such a line is left out: it is that of a
    program that was stopped.

    Raises
    ------
    InputError
        A line is of no known form, or its address is not canonical; the message has its number.
    """
    from vmsim.workloads.readers import kernels

    builder = RunBuilder(granule)
    calls = _Calls(builder)
    address = np.empty(_BLOCK, np.int64)
    count = np.empty(_BLOCK, np.int32)
    kind = np.empty(_BLOCK, np.uint8)
    state = np.zeros(5, np.int64)  # position in the text, accesses found, lines read, fetches left out, with a size
    tail = b""
    ended = False
    while not ended:
        block = file.read(_BLOCK)
        if not block:
            if not (tail and complete):
                break
            block, ended = b"\n", True
        whole = block.rfind(b"\n") + 1
        if not whole:
            tail += block
            if len(tail) > _BLOCK:
                raise InputError(f"{name}: line {state[2] + 1} is longer than {_BLOCK} bytes: not lackey's text.")
            continue
        text = tail + block[:whole]
        tail = block[whole:]
        view = np.frombuffer(text, np.uint8)
        state[0] = 0
        code = kernels.FULL
        while code != kernels.DONE:
            state[1] = 0
            code = kernels.lackey(view, fetch, np.int64(-granule), state, address, count, kind)
            found, at = int(state[1]), int(state[0])
            yield from builder.add(address[:found], count[:found], kind[:found])
            if code in (kernels.OTHER, kernels.BROKEN):
                end = text.index(b"\n", at)
                line = text[at:end].removesuffix(b"\r")
                where = f"{name}: line {state[2] + 1}"
                if code == kernels.BROKEN:
                    raise InputError(
                        f"{where}: {shown(line)}: expected a canonical hexadecimal address, a comma and a size from 1 "
                        "to 4096."
                    )
                used = calls.line(line, where)
                # two processes that share a log can glue an access to the end of a system call's line
                state[0] = at + used if used < len(line) else end + 1
                state[2] += used == len(line)
    if notes:
        notes.drop("fetches", int(state[3]))
        notes.drop("sizes", int(state[4]))
    calls.finish()
    yield from builder.rest()


class _Calls:
    """Turns the lines of system calls into events."""

    def __init__(self, builder: RunBuilder) -> None:
        self._builder = builder
        self._pids: dict[int, int] = {}  # valgrind's process ids → ours, from 1
        self._waiting: dict[int, tuple[str, list[int]]] = {}  # calls whose result comes on a later line
        self._breaks: dict[int, int] = {}  # where each process's heap ends

    def line(self, line: bytes, where: str) -> int:
        """Take a line that is not an access; return how much of it was used: less than all if an access follows."""
        if not line.strip() or line.startswith(_PASSED):
            return len(line)
        call = _CALL.fullmatch(line)
        if call is None:
            raise InputError(
                f'{where}: {shown(line)}: expected an access of valgrind\'s lackey (" L 1ffeff0008,8"), a SYSCALL line '
                "or a message of valgrind."
            )
        process, call_name, text = int(call[1]), call[2].decode(), call[3]
        pid = self._pids.setdefault(process, len(self._pids) + 1)
        result = _RESULT.search(text)
        glued = _GLUED.fullmatch(result[3]) if result else None
        rest = len(glued[1]) if glued else 0
        if call_name:
            arguments = text[: result.start()] if result else text
            numbers = [_number(word) for word in _NUMBER.findall(arguments.split(b"-->")[0])]
            self._waiting[pid] = call_name, numbers
            if child := _CHILD.search(arguments):
                self._builder.event(Op.FORK, pid, argument=self._child(int(child[1])))
        if result and pid in self._waiting:
            call_name, numbers = self._waiting.pop(pid)
            if result[1] == b"Success":
                self._succeeded(pid, call_name, numbers, int(result[2], 16), where)
        return len(line) - rest

    def finish(self) -> None:
        """End of the trace: an execve that nobody came back from has worked."""
        for pid, (call_name, _) in sorted(self._waiting.items()):
            if call_name == "execve":
                self._builder.event(Op.EXEC, pid)

    def _child(self, process: int) -> int:
        return self._pids.setdefault(process, len(self._pids) + 1)

    def _succeeded(self, pid: int, name: str, numbers: list[int], result: int, where: str) -> None:
        match name, numbers:
            case (("mmap" | "mmap2"), [_, length, protection, *_]):
                self._region(Op.MAP, pid, result, length, where, protection & 7)
            case "munmap", [address, length, *_]:
                self._region(Op.UNMAP, pid, address, length, where)
            case (("mprotect" | "pkey_mprotect"), [address, length, protection, *_]):
                self._region(Op.PROTECT, pid, address, length, where, protection & 7)
            case "mremap", [old, old_length, length, *_]:
                self._moved(pid, old, _whole(old_length), result, _whole(length), where)
            case "brk", _ if result != self._breaks.get(pid):
                self._region(Op.BRK, pid, result, 0, where)
                self._breaks[pid] = result
            case "exit_group", [status, *_]:
                self._builder.event(Op.EXIT, pid, argument=status & 0xFF)

    def _moved(self, pid: int, old: int, before: int, new: int, after: int, where: str) -> None:
        """mremap: what stays in place is left alone, so that its pages are kept."""
        if new != old:
            self._region(Op.MAP, pid, new, after, where, 3)
            self._region(Op.UNMAP, pid, old, before, where)
        elif after > before:
            self._region(Op.MAP, pid, old + before, after - before, where, 3)
        elif after < before:
            self._region(Op.UNMAP, pid, old + after, before - after, where)

    def _region(self, op: Op, pid: int, address: int, length: int, where: str, argument: int = 0) -> None:
        whole = _whole(length)
        if address % PAGE or address + whole > WIDEST_END:
            raise InputError(
                f"{where}: {op.name} of {length} bytes at {address:#x}: expected whole pages of user space, below "
                "2**56."
            )
        self._builder.event(op, pid, address, whole, argument)


def _number(word: bytes) -> int:
    return int(word, 16) if word.startswith(b"0x") else int(word)


def _whole(length: int) -> int:
    return -(-length // PAGE) * PAGE
