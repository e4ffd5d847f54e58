"""What monitors and the host say to each other: a log of typed messages that cannot outgrow its limit."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

__all__ = ["LIMIT", "Kind", "Message", "MessageLog"]

LIMIT: Final = 1 << 18
"""Messages kept of a simulation; later ones are counted only."""


class Kind(IntEnum):
    """What a message asks for or brings."""

    NEED_PAGES = 0  # monitor: these many are missing, for suspended vCPUs and up to the pool's minimum
    GRANT = 1  # host: here are pages
    RECLAIM = 2  # host: give up these many
    SPARE = 3  # monitor: here are pages that it can do without
    RETURN = 4  # monitor: here are the last ones, the VM has ended
    PIN = 5  # monitor: keep these pages of a buffer where they are, and let a device at them
    IO_DONE = 6  # host: the device has done its part
    UNPIN = 7  # monitor: they may be taken or moved again
    NEED_LARGE = 8  # monitor: a large page of these many is wanted
    GRANT_LARGE = 9  # host: here is one, cleared

    @property
    def from_host(self) -> bool:
        """Whether the host says it, else a monitor."""
        return self in (Kind.GRANT, Kind.GRANT_LARGE, Kind.RECLAIM, Kind.IO_DONE)


class Message(NamedTuple):
    """One message; it is sent at `time` and has had its effect `cycles` later."""

    time: int
    vm: int  # number of the monitor's VM
    kind: Kind
    pages: int
    cycles: int


class MessageLog:
    """Messages in columns of 8 bytes, the first `limit` of them.

    Attributes
    ----------
    dropped : int
        Messages after those, of which nothing but their number is known.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.dropped = 0
        self._columns = tuple(array("q") for _ in Message._fields)

    def add(self, time: int, vm: int, kind: Kind, pages: int, cycles: int) -> None:
        """Note a message."""
        if len(self) == self.limit:
            self.dropped += 1
            return
        for column, value in zip(self._columns, (time, vm, kind, pages, cycles), strict=True):
            column.append(value)

    def __len__(self) -> int:
        return len(self._columns[0])

    def __iter__(self) -> Iterator[Message]:
        """Yield the messages by time, those of one moment in the order they were noted."""
        for place in sorted(range(len(self)), key=self._columns[0].__getitem__):
            time, vm, kind, pages, cycles = (column[place] for column in self._columns)
            yield Message(time, vm, Kind(kind), pages, cycles)
