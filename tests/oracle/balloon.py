"""A balloon's protocol by plain arithmetic (Linux virtio_balloon.c): which messages follow from which sizes."""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """One message of the driver's."""

    what: str
    pages: int


class Driver:
    """A driver that has `free` pages to take, and tells of `most` at a time."""

    def __init__(self, free: int, most: int = 256) -> None:
        self.free = free
        self.most = most
        self.size = 0
        self.waits = 0

    def follow(self, target: int) -> list[Message]:
        """Return the messages until the target is reached, or nothing is free."""
        sent = []
        while self.size != target:
            wanted = min(abs(target - self.size), self.most)
            if target > self.size:
                got = min(wanted, self.free)
                self.waits += got < wanted
                if not got:
                    break
                self.free -= got
                self.size += got
                sent.append(Message("inflate", got))
            else:
                self.free += wanted
                self.size -= wanted
                sent.append(Message("deflate", wanted))
        return sent
