"""Threads on the CPUs of a guest: those of one CPU have their turns one after the other.

Thread t starts on CPU t mod CPUs and stays there, as without a load balancer. A CPU runs its threads round robin, each
for a slice of accesses, as Linux runs threads of equal weight. A thread at a barrier has no turn until all have come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vmsim.workloads.stream import Chunk, Counts, Event, Op, Regions, Stream

__all__ = ["OnCpus", "in_turn"]

_INIT = 1  # the process that a stream starts in


@dataclass(frozen=True)
class OnCpus:
    """A stream of more threads than a guest has CPUs, as one stream for each CPU.

    Parameters
    ----------
    stream : Stream
    cpus : int
        Fewer than threads.
    turn : int
        Accesses that a thread makes at a time.
    """

    stream: Stream
    cpus: int
    turn: int

    @property
    def name(self) -> str:
        """What to call it in results."""
        return self.stream.name

    @property
    def threads(self) -> int:
        """One for each CPU."""
        return self.cpus

    @property
    def accesses(self) -> int:
        """Accesses of all threads."""
        return self.stream.accesses

    def footprint(self) -> Regions:
        """Return starts and lengths in bytes of the regions used."""
        return self.stream.footprint()

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read what one of the CPUs runs."""
        numbers = range(thread, self.stream.threads, self.cpus)
        return in_turn({number: self.stream.chunks(number) for number in numbers}, self.turn)

    def digest(self) -> str:
        """Return the digest of the stream."""
        return self.stream.digest()


def in_turn(threads: dict[int, Iterator[Chunk]], accesses: int) -> Iterator[Chunk]:
    """Run the threads of one CPU in turn.

    Where another thread goes on, an event says so: SWITCH if it is of another process, else THREAD.

    Parameters
    ----------
    threads : dict
        What each makes, by its number.
    accesses : int
        Accesses that a thread makes at a time; it makes fewer where it comes to a barrier.
    """
    waiting = deque(_Thread(number, chunks) for number, chunks in threads.items())
    at_barrier: list[_Thread] = []
    last: _Thread | None = None
    while waiting:
        thread = waiting.popleft()
        switch: tuple[Event, ...] = ()
        if last not in (None, thread):
            switch = (_switch(last.pid, thread),)
        for piece in thread.turn(accesses):
            yield piece._replace(events=switch + piece.events)
            switch, last = (), thread
        if thread.waits:
            at_barrier.append(thread)
        elif not thread.ended:
            waiting.append(thread)
        if at_barrier and not waiting:
            yield _nothing((Event(0, Op.BARRIER, _INIT, 0, 0, 0),))
            waiting.extend(at_barrier)
            at_barrier.clear()


def _switch(pid: int, thread: _Thread) -> Event:
    """Return what tells the kernel, which runs process `pid`, that another thread has its turn."""
    if thread.pid != pid:
        return Event(0, Op.SWITCH, thread.pid, 0, 0, 0)
    return Event(0, Op.THREAD, pid, 0, 0, thread.number)


def _nothing(events: tuple[Event, ...]) -> Chunk:
    """Return a chunk of events alone."""
    return Chunk(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.uint8), events)


class _Thread:
    """A thread of one CPU, and how far it has come.

    Attributes
    ----------
    number : int
    pid : int
        The process that it is of.
    waits, ended : bool
        Whether its last turn ended at a barrier, or with its stream.
    """

    def __init__(self, number: int, chunks: Iterable[Chunk]) -> None:
        self.number = number
        self.pid = _INIT
        self.waits = False
        self.ended = False
        self._chunks = iter(chunks)
        self._chunk = _nothing(())
        self._run = 0  # the first run of it that is not made yet
        self._made = 0  # accesses of that run that are
        self._events: Sequence[Event] = ()  # that have not happened yet

    def turn(self, accesses: int) -> Iterator[Chunk]:
        """Give what it makes in one turn, of so many accesses at most."""
        self.waits = False
        while accesses and not self.waits:
            if self._run == len(self._chunk.address) and not self._events:
                following = next(self._chunks, None)
                if following is None:
                    self.ended = True
                    return
                self._chunk, self._events, self._run = following, following.events, 0
            piece, made = self._piece(accesses)
            accesses -= made
            if made or piece.events:
                yield piece

    def _piece(self, accesses: int) -> tuple[Chunk, int]:
        """Take at most so many accesses of the chunk, and the events among them, up to a barrier."""
        first, events = self._run, self._events
        places = (place for place, event in enumerate(events) if event.op == Op.BARRIER)
        before = next(places, len(events))
        end = events[before].position if before < len(events) else len(self._chunk.address)
        stop = min(end, first + accesses)  # a run has one access at least
        count = self._chunk.count[first:stop].copy()
        if len(count):
            count[0] -= self._made
        ends = np.cumsum(count, dtype=np.int64)
        total = int(ends[-1]) if len(ends) else 0
        if stop == end and total <= accesses:
            self._run, self._made = end, 0
            self.waits = before < len(events)
            self._events = events[before + self.waits :]
            return self._cut(first, count, events[:before]), total
        runs = int(np.searchsorted(ends, accesses)) + 1
        over = int(ends[runs - 1]) - accesses
        self._made = int(self._chunk.count[first + runs - 1]) - over if over else 0
        self._run = first + runs - (over > 0)
        count = count[:runs]
        count[-1] -= over
        happened = sum(event.position < first + runs for event in events[:before])
        self._events = events[happened:]
        return self._cut(first, count, events[:happened]), accesses

    def _cut(self, first: int, count: Counts, events: Sequence[Event]) -> Chunk:
        """Return runs of the chunk from `first` on, of so many accesses each."""
        part = slice(first, first + len(count))
        for event in events:
            if event.op == Op.SWITCH:
                self.pid = event.pid
        moved = tuple(replace(event, position=max(0, event.position - first)) for event in events)
        return Chunk(self._chunk.address[part], count, self._chunk.kind[part], moved)
