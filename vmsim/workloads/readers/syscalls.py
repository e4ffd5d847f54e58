"""Lines of system calls in valgrind's traces (`--trace-syscalls=yes`), and the events and accesses that they are.

A line is ``SYSCALL[PROCESS,THREAD](NUMBER) sys_NAME ( ARGUMENTS ) --> [how] Success(0xRESULT)``; where the call waits,
its result comes on a line of its own, ``SYSCALL[PROCESS,THREAD](NUMBER) ... [async] --> Success(0xRESULT)``. Which
thread runs says ``--PROCESS--   SCHED[THREAD]:  acquired lock (…)`` (`--trace-sched=yes`): valgrind runs one at a time.
"""

from __future__ import annotations

import re

from vmsim.base.errors import InputError
from vmsim.workloads.opening import shown
from vmsim.workloads.readers.buffers import Buffer, buffers, strings_of, without_strings
from vmsim.workloads.runs import RunBuilder
from vmsim.workloads.stream import PAGE, USER_END, WIDEST_END, Addresses, Counts, Kinds, Op

__all__ = ["PASSED", "Calls"]

PASSED = (b"==", b"--", b"**", b"SB ", b" -->", b"SCHED")  # what valgrind and lackey say besides
_CALL = re.compile(rb"SYSCALL\[(\d{1,10}),(\d{1,10})\]\(([^)]{1,20})\) (?:sys_)?(\w*) ?(.*)", re.DOTALL)
_NUMBER = re.compile(rb"0x[0-9a-f]{1,16}|\d{1,20}")
_RESULT = re.compile(rb"(Success|Failure)\((0x[0-9a-f]{1,16})\)(.*)", re.DOTALL)
_GLUED = re.compile(rb" ?(I  [0-9a-f]+,\d+| [LSM] [0-9a-f]+,\d+)")
_RUNS = re.compile(rb"--(\d{1,10})-- +SCHED\[(\d{1,10})\]: +acquired lock")
_CHILD = re.compile(rb"process \d{1,10} created child (\d{1,10})")
_FLAGS = re.compile(rb"\(\s*([0-9a-f]{1,16}),")  # of clone: hexadecimal without 0x

# Linux, include/uapi/asm-generic/mman-common.h, linux/mman.h, linux/sched.h
_MAP_SHARED, _MAP_ANONYMOUS = 1, 0x20  # MAP_SHARED_VALIDATE is 3
_MAP_POPULATE, _MAP_LOCKED = 0x8000, 0x2000
_MREMAP_DONTUNMAP = 4
_MADV_FREED = (4, 9, 24)  # DONTNEED, REMOVE, DONTNEED_LOCKED
_MADV_FREE = 8
_MADV_NOTED = (10, 11, 14, 15, 18, 19)  # DONTFORK, DOFORK, HUGEPAGE, NOHUGEPAGE, WIPEONFORK, KEEPONFORK
_MADV_POPULATE = (22, 23)  # READ, WRITE
_MLOCK_ONFAULT = 1
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CLONE_VM = 0x100
_VFORK, _CLONE3 = b"58", b"435"
_READ_WRITE = 3
_NO_FILE = -1
_SHARED, _FILE = 8, 16  # as of `stream.Event`


_OPENS = frozenset(("openat", "open"))
_OF_VALGRIND = b"/vgpreload_"  # files that valgrind has every program load


class Calls:
    """Turns the lines of system calls into events, and into the kernel's accesses to the program's memory.

    A call belongs to a thread, what it does to memory to the process that all its threads share. The library that
    valgrind preloads is left out, as it is no part of the program.

    Attributes
    ----------
    touched : list of Buffer
        What the kernel has read and written since the list was emptied.
    changed : list of (int, int)
        Where mappings have changed since this list was emptied: [start, end).
    hidden : list of (int, int)
        Where valgrind's library is: [start, end).
    """

    def __init__(self, builder: RunBuilder) -> None:
        self._builder = builder
        self._pids: dict[int, int] = {}  # valgrind's process ids → ours, from 1
        self._waiting: dict[tuple[int, int], tuple[str, list[int]]] = {}  # by pid and thread: results come later
        self._breaks: dict[int, int] = {}  # where each process's heap ends
        self._segments: dict[int, int] = {}  # bytes of each segment of shared memory (System V)
        self._attached: dict[tuple[int, int], int] = {}  # and where a process has one
        self._locked: set[int] = set()  # processes whose later mappings are populated (mlockall)
        self._opening: set[tuple[int, int]] = set()  # pids and threads that open valgrind's library
        self._library = _NO_FILE  # the file descriptor of that
        self.touched: list[Buffer] = []
        self.changed: list[tuple[int, int]] = []
        self.hidden: list[tuple[int, int]] = []

    def line(self, line: bytes, where: str) -> int:
        """Take a line that is not an access; return how much of it was used: less than all if an access follows."""
        if not line.strip() or line.startswith(PASSED):
            if ran := _RUNS.match(line):
                self._builder.thread((ran[1], ran[2]), self._pids.get(int(ran[1]), 1))
            return len(line)
        call = _CALL.fullmatch(line)
        if call is None:
            raise InputError(
                f'{where}: {shown(line)}: expected an access of valgrind\'s lackey (" L 1ffeff0008,8"), a SYSCALL line '
                "or a message of valgrind."
            )
        process, thread, number, call_name, text = int(call[1]), int(call[2]), call[3], call[4].decode(), call[5]
        pid = self._pids.setdefault(process, len(self._pids) + 1)
        result = _RESULT.search(text)
        glued = _GLUED.fullmatch(result[3]) if result else None
        rest = len(glued[1]) if glued else 0
        if call_name:
            arguments = text[: result.start()] if result else text
            arguments, paths = without_strings(arguments), strings_of(arguments)
            numbers = [_number(word) for word in _NUMBER.findall(arguments.split(b"-->")[0])]
            self._waiting[pid, thread] = call_name, numbers
            self.touched += paths
            if call_name in _OPENS:
                (self._opening.add if _OF_VALGRIND in text else self._opening.discard)((pid, thread))
            if child := _CHILD.search(arguments):
                op = Op.SHARE if _shares(number, arguments) else Op.FORK
                self._builder.event(op, pid, argument=self._child(int(child[1])))
        if result and (pid, thread) in self._waiting:
            call_name, numbers = self._waiting.pop((pid, thread))
            if result[1] == b"Success":
                self._succeeded(pid, thread, call_name, numbers, int(result[2], 16), where)
        return len(line) - rest

    def finish(self) -> None:
        """End of the trace: an execve that nobody came back from has worked."""
        for (pid, _), (call_name, _) in sorted(self._waiting.items()):
            if call_name == "execve":
                self._builder.event(Op.EXEC, pid)

    def seen(self, address: Addresses, count: Counts, kind: Kinds) -> tuple[Addresses, Counts, Kinds]:
        """Return those accesses that are the program's: not in the library that valgrind preloads."""
        for start, end in self.hidden:
            if (other := (address < start) | (address >= end)).all():
                continue
            address, count, kind = address[other], count[other], kind[other]
        return address, count, kind

    def _child(self, process: int) -> int:
        return self._pids.setdefault(process, len(self._pids) + 1)

    def _is_valgrinds(self, pid: int, thread: int, name: str, numbers: list[int], result: int) -> bool:
        """Note what is done with the library that valgrind preloads; return whether that is all there is to it."""
        if name in _OPENS and (pid, thread) in self._opening:
            self._library = result
        elif name == "close" and numbers[:1] == [self._library]:
            self._library = _NO_FILE
        elif name == "mmap" and numbers[4:5] == [self._library]:
            self.hidden.append((result, result + _whole(numbers[1])))
        else:
            place = result if name == "mmap" else numbers[0] if name in ("mprotect", "munmap") and numbers else 0
            return any(start <= place < end for start, end in self.hidden)
        return True

    def _succeeded(self, pid: int, thread: int, name: str, numbers: list[int], result: int, where: str) -> None:
        if self._is_valgrinds(pid, thread, name, numbers, result):
            return
        self.touched += buffers(name, numbers, result)
        match name, numbers:
            case (("mmap" | "mmap2"), [_, length, protection, flags, *_]):
                self._region(Op.MAP, pid, result, length, where, _kind(protection, flags))
                if protection & 7 and (flags & (_MAP_POPULATE | _MAP_LOCKED) or pid in self._locked):
                    self._region(Op.POPULATE, pid, result, length, where)
            case (("mmap" | "mmap2"), [_, length, protection, *_]):
                self._region(Op.MAP, pid, result, length, where, protection & 7)
            case "shmget", [_, length, *_]:
                self._segments[result] = _whole(length)
            case "shmat", [segment, *_] if segment in self._segments:
                self._attached[pid, result] = length = self._segments[segment]
                self._region(Op.MAP, pid, result, length, where, _READ_WRITE | _SHARED)
            case "shmdt", [address, *_] if (pid, address) in self._attached:
                self._region(Op.UNMAP, pid, address, self._attached.pop((pid, address)), where)
            case "munmap", [address, length, *_]:
                self._region(Op.UNMAP, pid, address, length, where)
            case (("mprotect" | "pkey_mprotect"), [address, length, protection, *_]):
                self._region(Op.PROTECT, pid, address, length, where, protection & 7)
            case "mremap", [old, old_length, length, *more]:
                keep = bool(more and more[0] & _MREMAP_DONTUNMAP)
                self._moved(pid, old, _whole(old_length), result, _whole(length), keep, where)
            case "madvise", [address, length, advice, *_]:
                self._advised(pid, address, length, advice, where)
            case "mlock", [address, length, *_]:
                self._lock(pid, address, length, where)
            case "mlock2", [address, length, flags, *_] if not flags & _MLOCK_ONFAULT:
                self._lock(pid, address, length, where)
            case "mlockall", [flags, *_]:
                if flags & _MCL_CURRENT and not flags & _MCL_ONFAULT:
                    self._region(Op.POPULATE, pid, 0, USER_END, where)
                future = flags & _MCL_FUTURE and not flags & _MCL_ONFAULT
                (self._locked.add if future else self._locked.discard)(pid)
            case "munlockall", _:
                self._locked.discard(pid)
            case "brk", _ if result != self._breaks.get(pid):
                before = self._breaks.get(pid, result)
                self._region(Op.BRK, pid, result, 0, where)
                self._breaks[pid] = result
                if pid in self._locked and result > before:
                    self._lock(pid, before, result - before, where)
            case "exit_group", [status, *_]:
                self._builder.event(Op.EXIT, pid, argument=status & 0xFF)

    def _advised(self, pid: int, address: int, length: int, advice: int, where: str) -> None:
        if advice in _MADV_FREED or advice == _MADV_FREE:
            self._region(Op.DISCARD, pid, address, length, where, int(advice == _MADV_FREE))
        elif advice in _MADV_NOTED:
            self._region(Op.ADVISE, pid, address, length, where, advice)
        elif advice in _MADV_POPULATE:
            self._region(Op.POPULATE, pid, address, length, where)

    def _lock(self, pid: int, address: int, length: int, where: str) -> None:
        """Populate whole pages, as mlock rounds what it is given."""
        first = address // PAGE * PAGE
        self._region(Op.POPULATE, pid, first, address + length - first, where)

    def _moved(self, pid: int, old: int, before: int, new: int, after: int, keep: bool, where: str) -> None:
        """mremap: existing pages stay or move, a tail cut off is unmapped, a new tail is mapped like the rest."""
        kept = min(before, after)
        if after < before:
            self._region(Op.UNMAP, pid, old + after, before - after, where)
        if new != old and kept:
            self._region(Op.MOVE, pid, old, kept, where, new)
            if keep:
                self._region(Op.MAP, pid, old, kept, where, _READ_WRITE)
        if after > before:
            self._region(Op.MAP, pid, new + before, after - before, where, _READ_WRITE)
            if pid in self._locked:
                self._region(Op.POPULATE, pid, new + before, after - before, where)

    def _region(self, op: Op, pid: int, address: int, length: int, where: str, argument: int = 0) -> None:
        whole = _whole(length)
        places = (address, argument) if op == Op.MOVE else (address,)
        if any((place % PAGE and op != Op.BRK) or place + whole > WIDEST_END for place in places):
            raise InputError(
                f"{where}: {op.name} of {length} bytes at {address:#x}: expected whole pages of user space, below "
                "2**56."
            )
        self._builder.event(op, pid, address, whole, argument)
        self.changed += [(place, place + whole) for place in places]


def _shares(number: bytes, arguments: bytes) -> bool:
    """Return whether a new process runs in its parent's address space: vfork, or clone with CLONE_VM.

    clone3's flags lie in memory. Who calls it to make a process that shares nothing has not been seen: glibc has
    posix_spawn and threads by it, and fork by clone.
    """
    if number in (_VFORK, _CLONE3) or b"vfork" in arguments:
        return True
    flags = _FLAGS.search(arguments)
    return flags is not None and int(flags[1], 16) & _CLONE_VM != 0


def _kind(protection: int, flags: int) -> int:
    """Return what a mapping is, as the argument of its event; of one without any right nothing is known."""
    if not protection & 7:
        return 0
    shared = _SHARED if flags & _MAP_SHARED else 0
    return protection & 7 | shared | (0 if flags & _MAP_ANONYMOUS else _FILE)


def _number(word: bytes) -> int:
    return int(word, 16) if word.startswith(b"0x") else int(word)


def _whole(length: int) -> int:
    return -(-length // PAGE) * PAGE
