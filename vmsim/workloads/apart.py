"""A recording of several threads, thread by thread.

A recording tells of the order of everything; of that, order is kept where it must be. Each thread makes its accesses
and operations in its own order. An operation that changes an address space comes after all accesses that other threads
made before it, and before all that they made after it: there stands a barrier, which all threads reach before any goes
on. So no thread touches what another has not mapped yet, or has unmapped. Between barriers threads run freely: for
what they waited (locks, joins) the recording does not say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from vmsim.workloads.stream import Chunk, Event, Op

__all__ = ["apart", "together"]

_INIT = 1  # the process that a stream starts in
_OF_THE_TRACE = frozenset((Op.THREAD, Op.BARRIER))  # events that no CPU sees
_OF_FILES = (Op.OPEN_FILE, Op.READ_FILE, Op.WRITE_FILE, Op.DROP_FILE, Op.SYNC_FILE)
_UNORDERED = frozenset((Op.COMPUTE, Op.IO, *_OF_FILES))  # operations that change no address space


def together(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Give what all threads made as that of one, in the order recorded."""
    for chunk in chunks:
        events = tuple(event for event in chunk.events if event.op not in _OF_THE_TRACE)
        yield chunk._replace(events=events) if len(events) < len(chunk.events) else chunk


def apart(chunks: Iterable[Chunk], thread: int) -> Iterator[Chunk]:
    """Give what one thread made, and the barriers, of which all threads have the same number.

    Parameters
    ----------
    chunks : iterable of Chunk
        What all made, in the order recorded. A THREAD event says who goes on; at a BARRIER the program starts again.
    thread : int
        Its number.
    """
    order = _Order()
    running = 0
    pid = own = _INIT  # the process that runs in the recording, and the one that the thread ran last
    for chunk in chunks:
        made = _Made()
        position = 0
        for event in (*chunk.events, None):
            stop = event.position if event else len(chunk.address)
            if stop > position:
                if order.access(running):
                    made.barrier()
                if running == thread:
                    own = made.switch(own, pid)
                    made.accesses(position, stop)
                position = stop
            if event is None:
                break
            if event.op == Op.THREAD:
                running = event.argument
            elif event.op == Op.SWITCH:
                pid = event.pid
            elif event.op == Op.BARRIER:
                order.start()
                running, pid = 0, _INIT
                made.barrier()
            else:
                if event.op not in _UNORDERED and order.operate(running):
                    made.barrier()
                if running == thread:
                    own = made.switch(own, pid)
                    made.event(event)
                    if event.op == Op.EXIT and event.pid == own:
                        own = 0  # whatever the kernel runs next
        if made.filled or made.events:
            yield made.chunk(chunk)


class _Made:
    """What a thread made of a chunk.

    Attributes
    ----------
    parts : list of slice
        Its runs.
    filled : int
        How many.
    events : list of Event
    """

    def __init__(self) -> None:
        self.parts: list[slice] = []
        self.filled = 0
        self.events: list[Event] = []

    def accesses(self, first: int, stop: int) -> None:
        """Add runs."""
        self.parts.append(slice(first, stop))
        self.filled += stop - first

    def chunk(self, whole: Chunk) -> Chunk:
        """Return its part of a chunk."""
        address, count, kind = (
            np.concatenate([column[part] for part in self.parts] or [column[:0]])
            for column in (whole.address, whole.count, whole.kind)
        )
        return Chunk(address, count, kind, tuple(self.events))

    def event(self, event: Event) -> None:
        """Add an event after the runs so far."""
        self.events.append(replace(event, position=self.filled))

    def barrier(self) -> None:
        """Add a barrier."""
        self.event(Event(0, Op.BARRIER, _INIT, 0, 0, 0))

    def switch(self, own: int, pid: int) -> int:
        """Add a switch to process `pid`, unless the thread is of it already; return the process."""
        if own != pid:
            self.event(Event(0, Op.SWITCH, pid, 0, 0, 0))
        return pid


class _Order:
    """Says where barriers must stand."""

    def __init__(self) -> None:
        self._made: set[int] = set()  # threads that have made accesses since the last barrier
        self._operated: int | None = None  # who has made operations since

    def start(self) -> None:
        """Note a barrier."""
        self._made.clear()
        self._operated = None

    def access(self, thread: int) -> bool:
        """Note accesses of a thread; return whether a barrier must stand before them: others have made operations."""
        needed = self._operated not in (None, thread)
        if needed:
            self.start()
        self._made.add(thread)
        return needed

    def operate(self, thread: int) -> bool:
        """Note an operation; return whether a barrier must stand before it: others have done anything."""
        needed = self._operated not in (None, thread) or bool(self._made - {thread})
        if needed:
            self.start()
        self._operated = thread
        return needed
