"""What monitors and the host say to each other: typed messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from vmsim.record.log import Log

__all__ = ["Kind", "Message", "MessageLog"]


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


class MessageLog(Log[Message]):
    """Messages as a `Log` has them, and how many each VM's monitor and the host have sent each other, exactly."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(_message, len(Message._fields), limit=limit)
        self._sent: Counter[tuple[int, Kind]] = Counter()

    def add(self, time: int, vm: int, kind: Kind, pages: int, cycles: int) -> None:
        """Note a message."""
        self._sent[vm, kind] += 1
        self.append(Message(time, vm, kind, pages, cycles))

    def sent(self, vm: int) -> dict[str, int]:
        """Return how many of each kind a VM's monitor and the host have sent each other."""
        return {kind.name.lower(): self._sent[vm, kind] for kind in Kind}

    def __iter__(self) -> Iterator[Message]:
        """Yield the messages by time, those of one moment in the order they were noted."""
        return iter(sorted(super().__iter__(), key=lambda each: each.time))


def _message(time: int, vm: int, kind: int, pages: int, cycles: int) -> Message:
    return Message(time, vm, Kind(kind), pages, cycles)
