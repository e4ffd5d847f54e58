"""The locks of an address space, as Linux has them: who reads and who writes, first come, first served.

A lock that is free costs nothing here: taking it is in the kernel's own figures. One that is not makes the vCPU give up
its core until it has it, as a sleeper of a rwsem does, and in a VM who waits for a paravirtual spinlock
(kernel/locking/rwsem.c, qspinlock_paravirt.h).
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import simpy

from vmsim.contracts import Steps, Vcpu

__all__ = ["LOCK_WAIT", "Held", "Lock"]

LOCK_WAIT = "lock_wait"  # the cause of the time that is waited for one


_What = TypeVar("_What")


class Held(Generic[_What]):
    """What is locked, for a ``with``: the locks are given back in the order given."""

    def __init__(self, what: _What, *locks: Lock) -> None:
        self._what = what
        self._locks = locks

    def __enter__(self) -> _What:
        return self._what

    def __exit__(self, *_: object) -> None:
        for lock in self._locks:
            lock.release()


class Lock:
    """A lock that many may hold to read, or one to write. Nobody passes who came before.

    Attributes
    ----------
    writing : bool
        One holds it to write.
    """

    def __init__(self) -> None:
        self.writing = False
        self._readers = 0
        self._queue: deque[tuple[simpy.Event, bool]] = deque()

    def take(self, *, write: bool) -> bool:
        """Take the lock if it is free; return whether it was."""
        if self._queue or self.writing or (write and self._readers):
            return False
        self._give(write)
        return True

    def acquire(self, vcpu: Vcpu, *, write: bool) -> Steps[Lock]:
        """Take the lock, and return it for a ``with``; wait while others have it."""
        if not self.take(write=write):
            event = vcpu.env.event()
            self._queue.append((event, write))
            yield from vcpu.wait(event, LOCK_WAIT)
        return self

    def release(self) -> None:
        """Give the lock back; those who waited longest have it next."""
        if self.writing:
            self.writing = False
        else:
            self._readers -= 1
        while self._queue:
            event, write = self._queue[0]
            if self.writing or (write and self._readers):
                return
            self._queue.popleft()
            self._give(write)
            event.succeed()

    def __enter__(self) -> None:
        """Have it: it was taken."""

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self.release()

    def _give(self, write: bool) -> None:
        if write:
            self.writing = True
        else:
            self._readers += 1
